"""NVIDIA's driver API: how it is called, how it fails, and the context that everything belongs to.

Through the package `cuda-bindings`, which imports without a driver and is loaded when a `Device` is
made. It lets other threads run during every call (since 12.9.1 and 13.0.0). Knows no torch: its
runtime uses the same context, the primary one of a device.
"""

from __future__ import annotations

import ctypes
import importlib
import uuid
from types import ModuleType, TracebackType
from typing import Any, Self

from ipc.errors import Closed, CudaError, NoCuda

HANDLE_BYTES = 64  # of an IPC handle
MAX_NAME_BYTES = 96


def import_driver() -> ModuleType:
    """Return the driver's functions, which may not be ready for use.

    Raises:
        NoCuda: the package is not installed.
    """
    try:
        return importlib.import_module("cuda.bindings.driver")
    except ImportError as error:
        raise NoCuda(f"the package cuda-bindings cannot be imported: {error}") from error


def load_driver() -> ModuleType:
    """Return the driver's functions, ready for use. Cheap after the first time.

    Raises:
        NoCuda: the package or the driver is not installed.
        CudaError: the driver finds no GPU, or cannot start.
    """
    driver = import_driver()
    try:
        call(driver, "cuInit", 0)
    except RuntimeError as error:  # all that the package raises where it finds no libcuda.so.1
        raise NoCuda(f"NVIDIA's driver cannot be loaded: {error}") from error
    return driver


def call(driver: ModuleType, name: str, *args: object) -> tuple[Any, ...]:
    """Call a function of the driver and return its results.

    Raises:
        CudaError: it failed, or queued work did that nobody had asked about yet.
    """
    status, *results = getattr(driver, name)(*args)
    if status != 0:
        _status, meaning = driver.cuGetErrorString(status)
        raise CudaError(int(status), status.name, name, (meaning or b"no such error").decode())
    return tuple(results)


def bytes_of_handle(handle: Any) -> bytes:  # noqa: ANN401
    """Return the bytes of an IPC handle, whose only attribute in all versions is its address."""
    return ctypes.string_at(handle.getPtr(), HANDLE_BYTES)


def handle_of_bytes(driver: ModuleType, data: bytes) -> object:
    """Return the IPC handle that these bytes are of."""
    if len(data) != HANDLE_BYTES:
        raise ValueError(f"an IPC handle has {HANDLE_BYTES} bytes, got {len(data)}")
    handle = driver.CUipcMemHandle()
    ctypes.memmove(handle.getPtr(), data, HANDLE_BYTES)
    return handle


class Owner:
    """Something to close, which a with-block does."""

    def close(self) -> None:
        """Give it up. Safe to call twice."""
        raise NotImplementedError

    def __enter__(self) -> Self:
        """Return the owner."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Give it up."""
        self.close()


class Device(Owner):
    """The primary context of one visible GPU, which torch uses too; retained until `close`.

    What is made for a device makes it current in the calling thread. Copies, records and waits do
    not, they are too frequent: a thread that only does these calls `use` first.
    """

    def __init__(self, ordinal: int = 0) -> None:
        """Retain the context of the GPU with this place in CUDA_VISIBLE_DEVICES, and use it.

        Raises:
            NoCuda: the package cuda-bindings or NVIDIA's driver is not installed.
            CudaError: there is no such GPU, or it cannot be used.
        """
        self.driver = load_driver()
        (self._device,) = call(self.driver, "cuDeviceGet", ordinal)
        (name,) = call(self.driver, "cuDeviceGetName", MAX_NAME_BYTES, self._device)
        (number,) = call(self.driver, "cuDeviceGetUuid", self._device)
        self.name: str = name.split(b"\0")[0].decode()  # "NVIDIA H200"
        self.uuid = f"GPU-{uuid.UUID(bytes=bytes(number.bytes))}"  # as NVML writes it
        self._context: object = None
        (self._context,) = call(self.driver, "cuDevicePrimaryCtxRetain", self._device)
        self.use()

    def use(self) -> None:
        """Make the context current in the calling thread."""
        if self._context is None:
            raise Closed(f"{self.uuid} is closed")
        call(self.driver, "cuCtxSetCurrent", self._context)

    def call(self, name: str, *args: object) -> tuple[Any, ...]:
        """Call a function of the driver in this context and return its results."""
        self.use()
        return call(self.driver, name, *args)

    def release(self, name: str, *args: object) -> None:
        """Call a function that gives something up. In a lost context all of it is gone already."""
        try:
            self.call(name, *args)
        except CudaError as error:
            if not error.is_lost:
                raise

    def memory(self) -> tuple[int, int]:
        """Return the bytes that are free, and all that the GPU has."""
        free, total = self.call("cuMemGetInfo")
        return free, total

    def can_pin_read_only(self) -> bool:
        """Whether host memory that is mapped read-only can be pinned."""
        attribute = self.driver.CUdevice_attribute
        supported = attribute.CU_DEVICE_ATTRIBUTE_READ_ONLY_HOST_REGISTER_SUPPORTED
        (value,) = call(self.driver, "cuDeviceGetAttribute", supported, self._device)
        return bool(value)

    def close(self) -> None:
        """Release the context; it lives on while torch, or another `Device`, retains it."""
        if self._context is not None:
            self.release("cuDevicePrimaryCtxRelease", self._device)
            self._context = None
