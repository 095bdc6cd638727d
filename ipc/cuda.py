"""Pools in the memory of a GPU, and copies that other work goes on beside.

A pool is one allocation of its owner, exported once and opened once by every other process that
reads it; where a tensor lies in it is arithmetic. Pointers and stream handles are plain integers.
No event of another process is ever waited for: who dies with one unrecorded would stop all who do.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from queue import SimpleQueue
from types import TracebackType
from typing import Self

from ipc.cuda_driver import Device, Owner, bytes_of_handle, call, handle_of_bytes, load_driver
from ipc.errors import Closed, CudaError, NoMemory, ProtocolError
from ipc.records import PoolAddress

__all__ = [
    "CudaError",
    "CudaMemory",
    "CudaPool",
    "Device",
    "Event",
    "OpenedPool",
    "PinnedMemory",
    "Stream",
    "Waiter",
]

# The driver cuts smaller allocations from one block, and would export the whole of that.
GRANULE_BYTES = 2 * 2**20

_OUT_OF_MEMORY, _NOT_READY = "CUDA_ERROR_OUT_OF_MEMORY", "CUDA_ERROR_NOT_READY"


class CudaMemory(Owner):
    """An allocation on a GPU, for this process alone. Its bytes are those that were there before.

    Raises:
        NoMemory: the GPU refused it.
    """

    def __init__(self, device: Device, name: str, nbytes: int) -> None:
        self._device = device
        self.pointer = _allocate(device, name, nbytes)

    def close(self) -> None:
        """Free the memory, which all others have closed. Safe to call twice."""
        if self.pointer:
            pointer, self.pointer = self.pointer, 0
            self._device.release("cuMemFree", pointer)


class CudaPool(CudaMemory):
    """The owner's end: an allocation of its own, with an address for others."""

    def __init__(
        self, device: Device, name: str, *, owner: str, num_slots: int, slot_bytes: int
    ) -> None:
        """Allocate and export the memory.

        Raises:
            NoMemory: the GPU refused it.
            CudaError: this GPU does not share memory between processes.
        """
        super().__init__(device, name, num_slots * slot_bytes)
        try:
            (handle,) = device.call("cuIpcGetMemHandle", self.pointer)
        except CudaError:
            self.close()
            raise
        self.address = PoolAddress(
            name=name,
            owner=owner,
            num_slots=num_slots,
            slot_bytes=slot_bytes,
            pid=os.getpid(),
            gpu=device.uuid,
            ipc_handle=bytes_of_handle(handle),
        )


def _allocate(device: Device, name: str, nbytes: int) -> int:
    try:
        (pointer,) = device.call("cuMemAlloc", -(-nbytes // GRANULE_BYTES) * GRANULE_BYTES)
    except CudaError as error:
        if error.name != _OUT_OF_MEMORY:
            raise
        free, total = device.memory()
        raise NoMemory(
            f"pool {name}: {device.uuid} refused {nbytes / 2**20:.0f} MiB, "
            f"{free / 2**20:.0f} of its {total / 2**20:.0f} MiB are free"
        ) from error
    return int(pointer)


class OpenedPool(Owner):
    """A pool of another process, on this GPU or on another, as `device` reads it."""

    def __init__(self, device: Device, address: PoolAddress) -> None:
        """Map the pool, once for all items: this takes long.

        Raises:
            ProtocolError: the address is of no pool on a GPU.
            CudaError: the owner is gone, or is this process, or the GPUs cannot reach each other.
        """
        self.address = address
        self._device = device
        self.pointer = 0
        if not address.gpu:
            raise ProtocolError(f"pool {address.name} lies on no GPU")
        try:
            handle = handle_of_bytes(device.driver, address.ipc_handle)
        except ValueError as error:
            raise ProtocolError(f"pool {address.name}: {error}") from error
        flags = device.driver.CUipcMem_flags.CU_IPC_MEM_LAZY_ENABLE_PEER_ACCESS
        (pointer,) = device.call("cuIpcOpenMemHandle", handle, flags)
        self.pointer = int(pointer)

    def close(self) -> None:
        """Unmap the pool, out of which all copies are done. Safe to call twice."""
        if self.pointer:
            pointer, self.pointer = self.pointer, 0
            self._device.release("cuIpcCloseMemHandle", pointer)


class PinnedMemory(Owner):
    """Host memory that is mapped already, pinned: copies of it run at full speed, and beside us."""

    def __init__(self, device: Device, pointer: int, nbytes: int, *, read_only: bool) -> None:
        """Pin the memory, which has to stay mapped until `close`.

        Raises:
            CudaError: it is pinned already; or it is mapped read-only, and `read_only` is not set
                or not supported here (`Device.can_pin_read_only`).
        """
        self._device = device
        self._pointer = 0
        flags = device.driver.CU_MEMHOSTREGISTER_READ_ONLY if read_only else 0
        device.call("cuMemHostRegister", pointer, nbytes, flags)
        self._pointer = pointer

    def close(self) -> None:
        """Unpin the memory. Safe to call twice."""
        if self._pointer:
            pointer, self._pointer = self._pointer, 0
            self._device.release("cuMemHostUnregister", pointer)


class Stream(Owner):
    """A queue of work on one GPU, run in order, beside other streams."""

    def __init__(self, device: Device, *, priority: int = 0) -> None:
        """Make a stream that does not wait for the default one; a lower priority goes first."""
        self._driver = device.driver
        self._device: Device | None = device
        flags = device.driver.CUstream_flags.CU_STREAM_NON_BLOCKING
        (stream,) = device.call("cuStreamCreateWithPriority", flags, priority)
        self.handle = int(stream)

    @classmethod
    def of(cls, handle: int) -> Self:
        """Return a stream that somebody else made, and closes: torch's `cuda_stream`."""
        stream = cls.__new__(cls)
        stream._driver, stream._device, stream.handle = load_driver(), None, handle
        return stream

    def wait(self, event: Event) -> None:
        """Let what is queued from now on begin after the event; this call does not wait."""
        call(self._driver, "cuStreamWaitEvent", self.handle, event.handle, 0)

    def copy(self, target: int, source: int, nbytes: int) -> None:
        """Queue a copy between any of: pinned host memory, this GPU's, a pool that it opened."""
        call(self._driver, "cuMemcpyAsync", target, source, nbytes, self.handle)

    def synchronize(self) -> None:
        """Wait until all that is queued is done.

        Raises:
            CudaError: it failed.
        """
        call(self._driver, "cuStreamSynchronize", self.handle)

    def close(self) -> None:
        """Give it up; what is queued runs to its end. Safe to call twice."""
        if self._device is not None:
            device, self._device = self._device, None
            device.release("cuStreamDestroy", self.handle)


class Event(Owner):
    """A mark in a stream. Waiting for it sleeps, it takes no core."""

    def __init__(self, device: Device) -> None:
        """Make an event that is done, as nothing was recorded."""
        self._driver = device.driver
        self._device: Device | None = device
        flags = device.driver.CUevent_flags
        (event,) = device.call(
            "cuEventCreate", flags.CU_EVENT_BLOCKING_SYNC | flags.CU_EVENT_DISABLE_TIMING
        )
        self.handle = int(event)

    def record(self, stream: Stream) -> None:
        """Mark what is queued in `stream` by now; an earlier mark counts no more."""
        call(self._driver, "cuEventRecord", self.handle, stream.handle)

    def done(self) -> bool:
        """Whether all that was marked is done.

        Raises:
            CudaError: it failed.
        """
        try:
            call(self._driver, "cuEventQuery", self.handle)
        except CudaError as error:
            if error.name != _NOT_READY:
                raise
            return False
        return True

    def synchronize(self) -> None:
        """Wait until all that was marked is done.

        Raises:
            CudaError: it failed.
        """
        call(self._driver, "cuEventSynchronize", self.handle)

    def close(self) -> None:
        """Give it up, recorded or not. Safe to call twice."""
        if self._device is not None:
            device, self._device = self._device, None
            device.release("cuEventDestroy", self.handle)


class Waiter(threading.Thread):
    """Waits for events in the order given, and calls back in its own thread.

    A callback that raises ends the thread, as it would any (`threading.excepthook`).
    """

    def __init__(self, device: Device, *, name: str = "cuda-waiter") -> None:
        """Make the thread; `start`, or a with-block, starts it."""
        super().__init__(name=name, daemon=True)  # a GPU that hangs holds no process
        self._device = device
        self._queue = SimpleQueue[tuple[Event, Callable[[CudaError | None], None]] | None]()
        self._has_ended = False

    def after(self, event: Event, callback: Callable[[CudaError | None], None]) -> None:
        """Call back when `event` is done, with the error if the work before it failed.

        Raises:
            Closed: `stop` was called, or a callback has raised.
        """
        if self._has_ended:
            raise Closed(f"{self.name} has ended")
        self._queue.put((event, callback))

    def stop(self) -> None:
        """End the thread when all callbacks are done, and wait for that. Safe to call twice."""
        self._has_ended = True
        self._queue.put(None)
        if self.is_alive() and threading.current_thread() is not self:
            self.join()

    def run(self) -> None:
        """Wait and call back; runs in the thread."""
        try:
            while (waiting := self._queue.get()) is not None:
                event, callback = waiting
                callback(self._error_of(event))
                del waiting, event, callback  # what they hold is not ours while we wait
        finally:
            self._has_ended = True

    def _error_of(self, event: Event) -> CudaError | None:
        try:
            self._device.use()
            event.synchronize()
        except CudaError as error:
            return error
        return None

    def __enter__(self) -> Self:
        """Start the thread."""
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """End the thread when all callbacks are done."""
        self.stop()
