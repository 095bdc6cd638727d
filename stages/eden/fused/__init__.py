"""EDEN's networks once more, fast on a GPU: everything between two matrix products is one kernel.

`encoder`, `denoiser` and `decoder` here have the constructors and methods of those a folder above,
which say what is computed; tests hold one against the other. Importing this needs Triton.
"""
