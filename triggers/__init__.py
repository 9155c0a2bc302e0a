"""Event sources: what turns the world into CloudEvents in Kafka."""

if __name__ != "upon.triggers":
    raise ImportError("import this package as upon.triggers, not triggers")
