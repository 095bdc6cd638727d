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

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial
from typing import Any, Protocol, TypeVar

import torch
import triton
from triton import knobs

HelperT = TypeVar("HelperT", bound=Callable[..., Any])

BLOCK_NUMBERS = 4096  # of the largest block that a program keeps in registers, about
THREADS = 16  # that compile; a stage has some 10 kernels

_is_compiling: ContextVar[bool] = ContextVar("is_compiling", default=False)


class Kernel:
    """A function in Triton's language, to be launched as `kernel[grid](...)`."""

    def __init__(self, function: Callable[..., None]) -> None:
        self._compiled = triton.jit(function)

    def __getitem__(self, grid: tuple[int, ...]) -> Callable[..., object]:
        """Return what launches as many programs as `grid` says, or only compiles; see below."""
        if _is_compiling.get():
            return partial(self._compiled.warmup, grid=grid)
        launch: Callable[..., object] = self._compiled[grid]
        return launch


@contextmanager
def compiling(device: torch.device) -> Iterator[None]:
    """Within, launching a kernel begins to compile it, and it does not run.

    When the block ends, all of them are compiled, at the same time, and loaded onto the GPU
    `device`. Compiled one at a time as they come they would take several seconds.
    """
    before = _is_compiling.set(True)
    try:
        with (
            ThreadPoolExecutor(THREADS, initializer=torch.cuda.set_device, initargs=(device,)) as t,
            triton.AsyncCompileMode(_Loader(t)),
        ):
            yield
    finally:
        _is_compiling.reset(before)


class _Compiled(Protocol):
    @property
    def run(self) -> Callable[..., object]:
        """Loads it first: a C compiler makes its launcher, and the GPU gets its code."""


class _Loader:
    """Threads that load what they have compiled; Triton alone would do so when it is launched."""

    def __init__(self, threads: ThreadPoolExecutor) -> None:
        self._threads = threads

    def submit(self, compile_: Callable[[], _Compiled]) -> Future[_Compiled]:
        return self._threads.submit(self._load, compile_)

    def _load(self, compile_: Callable[[], _Compiled]) -> _Compiled:
        compiled = compile_()
        assert callable(compiled.run)
        return compiled


def kernel(function: Callable[..., None]) -> Kernel:
    """Make a kernel of a function in Triton's language."""
    return Kernel(function)


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
