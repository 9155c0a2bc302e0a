"""What a dispatcher decides: pure, without sockets, Kafka or a clock. It begins at `state`."""
