"""Rules over events: what decides which function runs where, and says so in Kafka."""

if __name__ != "upon.streams":
    raise ImportError("import this package as upon.streams, not streams")
