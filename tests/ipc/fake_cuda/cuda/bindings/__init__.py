"""Stands for the package cuda-bindings, in processes that have this folder on PYTHONPATH."""
