"""The boundary to Triton: how a kernel is declared, and how large its blocks are.

A kernel is one function for one block of numbers; `kernel[grid](...)` queues as many of them as
the grid says on the current stream. Triton compiles it at its first call for each combination of
dtypes and constants and keeps the result on disk. With TRITON_INTERPRET=1 in the environment it
runs on the CPU, slowly: tests do that.

Triton reads annotations, too: `tl.pointer_type` is a tensor of the launch; `tl.tensor` a block, or
a number of 32 bits, or of 64 where its value needs them (`int` would be 32 always); `float` is 32
bits; `tl.constexpr` is known when it is compiled.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, TypeVar

import torch
import triton
from triton import knobs

HelperT = TypeVar("HelperT", bound=Callable[..., Any])

BLOCK_NUMBERS = 4096  # of the largest block that a program keeps in registers, about


class Kernel(Protocol):
    """A compiled function, to be launched as `kernel[grid](...)`."""

    def __getitem__(self, grid: tuple[int, ...]) -> Callable[..., object]:
        """Return what launches as many programs as `grid` says."""


def kernel(function: Callable[..., None]) -> Kernel:
    """Make a kernel of a function in Triton's language."""
    compiled: Kernel = triton.jit(function)
    return compiled


def helper(function: HelperT) -> HelperT:
    """Make a function in Triton's language that kernels may call."""
    compiled: HelperT = triton.jit(function)
    return compiled


def is_interpreted() -> bool:
    """Whether kernels run on the CPU, without a compiler, to be tested."""
    return bool(knobs.runtime.interpret)


def padded(count: int) -> int:
    """Return the next power of two: blocks have no other sizes, so a mask covers the rest."""
    return 1 << (count - 1).bit_length()


def rows_per_block(row: int, most: int) -> int:
    """Return how many rows of `row` numbers, a power of two, one program takes: at most `most`."""
    return max(1, min(most, BLOCK_NUMBERS // row))


def programs(count: int, block: int) -> int:
    """Return how many blocks cover `count`."""
    return -(-count // block)


def row_stride(tensor: torch.Tensor) -> int:
    """Return the numbers from one entry of the first dimension to the next.

    The others have to be contiguous: kernels ask for no more strides than this.
    """
    assert tensor[0].is_contiguous(), f"strides {tensor.stride()} of shape {tuple(tensor.shape)}"
    return tensor.stride(0)
