"""Model and media code. Knows nothing of processes, sockets, queues or slots."""
