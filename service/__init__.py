"""The service: REST and WebSocket in front of Kafka, and the task store."""

if __name__ != "upon.service":
    raise ImportError("import this package as upon.service, not service")
