"""What a manager decides: pure, without processes, sockets or a clock. It begins at `pool`."""
