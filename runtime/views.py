"""Views of pool memory as numpy arrays or torch tensors, whichever a stage wants.

The one place of runtime/ that may meet torch, and only where a stage has brought it along.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ipc.records import TensorHandle
from stages.base import ITEM_BYTES, Library, TensorSpec


class Views:
    """All bytes of one pool, and the tensors in them. Made once per pool and library."""

    def __init__(self, data: object, *, slot_bytes: int, library: Library) -> None:
        """Take all bytes of the pool: a numpy array, or what `gpu_bytes` returns."""
        self._slot_bytes = slot_bytes
        self._data: Any = data
        if library == "torch" and isinstance(data, np.ndarray):
            self._data = _as_torch(data)
        self._library = library

    def tensor(self, handle: TensorHandle) -> object:
        """Return the tensor that `handle` names, as a view; numpy sees bfloat16 as uint16."""
        start = handle.slot * self._slot_bytes + handle.offset
        flat = self._data[start : start + prod(handle.shape) * ITEM_BYTES[handle.dtype]]
        view: object = flat.view(self._dtype(handle.dtype)).reshape(handle.shape)
        return view

    def _dtype(self, name: str) -> object:
        if self._library == "torch":
            return _torch_dtype(name)
        return np.dtype("uint16" if name == "bfloat16" else name)


def gpu_bytes(pointer: int, nbytes: int) -> object:
    """Return memory of the current GPU as torch sees it, uint8; it must outlive the tensor."""
    import torch

    return torch.as_tensor(_GpuBytes(pointer, nbytes), device="cuda")


def compute_on(stream: int) -> None:
    """Make this CUDA stream torch's current one, in this thread."""
    import torch

    external: Any = torch.cuda.ExternalStream  # untyped
    torch.cuda.set_stream(external(stream))


class _GpuBytes:
    """What `__cuda_array_interface__` asks for; it has no bfloat16, so: bytes."""

    def __init__(self, pointer: int, nbytes: int) -> None:
        self.__cuda_array_interface__ = {
            "shape": (nbytes,),
            "typestr": "|u1",
            "data": (pointer, False),
            "version": 3,
            "strides": None,
        }


def empty(spec: TensorSpec, libraries: Iterable[Library]) -> dict[Library, object]:
    """Return one new tensor in plain memory, as each of `libraries` sees it."""
    data = np.empty(spec.nbytes, np.uint8)
    handle = TensorHandle(pool="", slot=0, offset=0, shape=spec.shape, dtype=spec.dtype)
    return {
        library: Views(data, slot_bytes=spec.nbytes, library=library).tensor(handle)
        for library in libraries
    }


def _as_torch(data: NDArray[np.uint8]) -> object:
    import torch

    with warnings.catch_warnings():  # a reader's mapping is read-only, and is meant to be
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        return torch.from_numpy(data)


def _torch_dtype(name: str) -> object:
    import torch

    dtype: object = getattr(torch, name)
    return dtype
