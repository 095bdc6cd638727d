"""What a worker has of its GPU beside what its stages take: streams, a waiter, a pool.

Belongs to the main thread; only the waiter's thread is its own, and it tells the main thread by a
message. Here and in the files that use it the runtime meets CUDA; a worker without a GPU imports
none of it.
"""

from __future__ import annotations

import logging
import threading
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from queue import Empty, SimpleQueue
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ipc.cuda import CudaError, CudaPool, Device, Event, OpenedPool, Stream, Waiter
from ipc.errors import IpcError
from ipc.records import PoolAddress
from ipc.setup_messages import MakePool, PoolMade, PoolsTried, TryPools
from runtime.path import Identity
from runtime.views import compute_on

logger = logging.getLogger(__name__)

TOLD_S = 1.0  # after which a waiter that tells nothing is looked after
PATTERN_BYTES = 4096  # at the start of a new pool, for whoever tries to read it
Call = Callable[[CudaError | None], None]
Done = tuple[Any, CudaError | None]  # what was waited for, and why it went wrong


class GpuLost(RuntimeError):
    """The GPU, or this process's context on it, cannot be used any more."""


@contextmanager
def losing_the_gpu() -> Iterator[None]:
    """Queueing fails where earlier work has: in a context that is lost, every call does."""
    try:
        yield
    except CudaError as error:
        raise GpuLost(str(error)) from error


class WorkerGpu:
    """The one GPU that this process sees. Its streams do not wait for each other by themselves."""

    def __init__(self, identity: Identity, wake: Callable[[], None]) -> None:
        """Open the GPU.

        Args:
            identity: of the worker.
            wake: called in the waiter's thread when `done` has something new.

        Raises:
            NoCuda: CUDA's driver interface is not installed.
            CudaError: there is no GPU, or it cannot be used.
        """
        self._identity, self._wake = identity, wake
        self.device = Device(0)
        self.device.use()
        self.compute, self.copy_in, self.copy_out = (Stream(self.device) for _ in range(3))
        self._done: SimpleQueue[Done] = SimpleQueue()
        self._waiter = Waiter(self.device)
        self._waiter.start()
        self._arrivals: Waiter | None = None  # only a trace asks for them
        self.pool: CudaPool | None = None

    def use(self) -> None:
        """Have the stages compute on our stream."""
        compute_on(self.compute.handle)

    def make_pool(self, message: MakePool) -> PoolMade:
        """Give the old pool up and make a new one; what goes wrong is told, not raised.

        Raises:
            GpuLost: it is more than that.
        """
        try:
            self._remake(message)
        except IpcError as error:
            _raise_if_lost(error)
            return PoolMade(**self._identity, address=(), error=str(error))
        address = (self.pool.address,) if self.pool else ()
        return PoolMade(**self._identity, address=address, error="")

    def _remake(self, message: MakePool) -> None:
        if self.pool is not None:
            self.pool.close()
            self.pool = None
        if not message.num_slots:
            return
        self.pool = CudaPool(
            self.device,
            message.pool,
            owner=self._identity["sender"],
            num_slots=message.num_slots,
            slot_bytes=message.slot_bytes,
        )
        pattern = _pattern(self.pool.address)
        self._copy_now(self.pool.pointer, pattern.ctypes.data, pattern.nbytes)

    def try_pools(self, message: TryPools) -> PoolsTried:
        """Read the pattern of each pool.

        Raises:
            GpuLost: not the pool is to blame: no call would work any more.
        """
        errors = {}
        for address in message.pools:
            try:
                self._try(address)
            except IpcError as error:
                _raise_if_lost(error)
                errors[address.name] = str(error)
        return PoolsTried(**self._identity, errors=errors)

    def _try(self, address: PoolAddress) -> None:
        wanted = _pattern(address)
        found = np.zeros_like(wanted)
        pool = OpenedPool(self.device, address)
        try:
            self._copy_now(found.ctypes.data, pool.pointer, found.nbytes)
        finally:
            pool.close()
        if not np.array_equal(found, wanted):
            raise IpcError(f"{address.name}: opened, but what is read is not what was written")

    def _copy_now(self, target: int, source: int, nbytes: int) -> None:
        """Copy and wait; not for when items run."""
        event = Event(self.device)
        try:
            self.copy_in.copy(target, source, nbytes)
            event.record(self.copy_in)
            event.synchronize()
        finally:
            event.close()

    def after(self, event: Event, what: object) -> None:
        """Have `done` yield `what` when `event` has happened, in the order of these calls."""

        def tell(error: CudaError | None) -> None:
            self._done.put((what, error))
            self._wake()

        self._waiter.after(event, tell)

    def note(self, event: Event, call: Call) -> None:
        """Have `call` called in the waiter's thread, in the order of `after`."""
        self._waiter.after(event, call)

    def note_arrival(self, event: Event, call: Call) -> None:
        """Have `call` called in a thread that waits for nothing but copies in."""
        if self._arrivals is None:
            self._arrivals = Waiter(self.device, name="cuda-arrivals")
            self._arrivals.start()
        self._arrivals.after(event, call)

    def done(self) -> Iterator[Any]:
        """Yield all that has happened since the last call.

        Raises:
            GpuLost: it did not go well, and nothing on this GPU will.
        """
        while True:
            try:
                what, error = self._done.get_nowait()
            except Empty:
                return
            if error is not None:
                raise GpuLost(str(error)) from error
            yield what

    def settle(self) -> None:
        """Wait for everything that was queued, and until the waiter needs no event of that."""
        event = Event(self.device)
        try:
            for stream in (self.copy_in, self.compute, self.copy_out):
                event.record(stream)
                event.synchronize()
            for waiter in self._waiters():
                _wait_for(waiter, event)
        finally:
            event.close()

    def _waiters(self) -> list[Waiter]:
        return [self._waiter, *([self._arrivals] if self._arrivals else [])]

    def leave(self) -> None:
        """End the threads; the end of the process gives back the rest.

        Others may have our pool open still, and may be told to stop later than we are. The driver
        gives memory that is shared up when the last of all these processes has let go of it, but
        not so if its owner frees it, or gives its context up, while it lives.
        """
        for waiter in self._waiters():
            waiter.stop()

    def close(self) -> None:
        """Give everything back, when nobody else has our pool open. The stages come first."""
        self.leave()
        if self.pool is not None:
            self.pool.close()
            self.pool = None
        for stream in (self.copy_in, self.compute, self.copy_out):
            stream.close()
        self.device.close()


def _wait_for(waiter: Waiter, event: Event) -> None:
    """Wait until `waiter` has called back for all that it was given, `event` last."""
    told = threading.Event()
    waiter.after(event, lambda _error: told.set())
    while waiter.is_alive() and not told.wait(TOLD_S):
        pass


def _raise_if_lost(error: IpcError) -> None:
    if isinstance(error, CudaError) and error.is_lost:
        raise GpuLost(str(error)) from error


def _pattern(address: PoolAddress) -> NDArray[np.uint8]:
    """Return bytes that only this pool starts with."""
    nbytes = min(PATTERN_BYTES, address.num_slots * address.slot_bytes)
    dice = np.random.default_rng(zlib.crc32(address.name.encode()))
    return dice.integers(0, 256, nbytes, np.uint8)
