"""How a tensor gets from its writer to a reader, as plans and reports say it."""

LOCAL = "local"  # the same worker: it stays where it is
VIEW = "cuda-view"  # another worker on the same GPU reads it in place
COPY = "cuda-copy"  # a worker on another GPU copies it, GPU to GPU
HOST = "host"  # through shared host memory
