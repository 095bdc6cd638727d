"""One hop between the memory of two GPUs, or within that of one, as runpipe's data path goes it.

The producer copies an item into a leased slot of its pool; when that is done, its waiter thread
sends `ItemReady`. The consumer copies it out of the slot into its own GPU's memory; when that is
done, its waiter thread sends `SlotFreed`. No stream waits for an event of the other process.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from importlib.util import find_spec
from multiprocessing.context import SpawnContext
from pathlib import Path
from typing import ClassVar

import msgspec
import numpy as np
import zmq
from numpy.typing import NDArray

from ipc.channel import Inbox, Outbox
from ipc.cuda import CudaPool, Device, Event, OpenedPool, Stream, Waiter
from ipc.errors import CudaError
from ipc.messages import AnyMessage, ItemReady, SlotFreed
from ipc.pool import SlotPool
from ipc.records import PoolAddress, TensorHandle
from ipc.setup_messages import CloseJob
from runtime.host import ROOT, probe_host
from tools.hop_pair import End, Stamps, Task

ZmqContext = zmq.Context[zmq.Socket[bytes]]
Bytes = NDArray[np.uint8]

# Different items in a row, and places that they are copied to: no two of these, and the slots, have
# a divisor in common, so that what an earlier item left anywhere is never what a later one brings.
SOURCES, TARGETS = 5, 3
RAW_COPIES = 16  # queued at once where the copy alone is measured
POISON = 0xA5


class Offer(msgspec.Struct, frozen=True, kw_only=True):
    """producer -> consumer, once a run, beside the messages: where its pool is, what it sends."""

    pool: PoolAddress
    seed: bytes  # of all items; new for each run


class CudaHop:
    """Copied into a pool of one GPU's memory, and out of it to the other's.

    A task whose items are not touched is the copy alone: the consumer copies out of the pool's
    slots back to back, no message is sent; its stamps are the begin and end of RAW_COPIES each.
    """

    name: ClassVar[str] = "runpipe"
    copies: ClassVar[int] = 2
    how: ClassVar[str] = "into a slot and out of it; messages when copies are done"
    wants_pool: ClassVar[bool] = False

    def __init__(
        self, mp_context: SpawnContext, folder: Path, *, gpus: tuple[int, int] = (0, 1)
    ) -> None:
        self._producer, self._consumer = f"ipc://{folder}/producer", f"ipc://{folder}/consumer"
        self._offers = mp_context.SimpleQueue()
        self._gpus = gpus

    @staticmethod
    def missing(_nbytes: int) -> str:
        """Two GPUs, or the package."""
        if find_spec("cuda") is None or find_spec("cuda.bindings") is None:
            return "the package cuda-bindings is not installed"
        have = len(probe_host(ROOT).gpus)
        return "" if have else "there is no GPU"

    @contextmanager
    def producer(self) -> Iterator[End]:
        """Own the pool."""
        with (
            Device(self._gpus[0]) as device,
            zmq.Context() as zmq_context,
            Inbox(zmq_context, self._producer) as inbox,
        ):
            yield lambda task: self._produce(device, zmq_context, inbox, task)

    @contextmanager
    def consumer(self) -> Iterator[End]:
        """Open it."""
        with (
            Device(self._gpus[1]) as device,
            zmq.Context() as zmq_context,
            Inbox(zmq_context, self._consumer) as inbox,
        ):
            yield lambda task: self._consume(device, zmq_context, inbox, task)

    def _produce(self, device: Device, zmq_context: ZmqContext, inbox: Inbox, task: Task) -> Stamps:
        with ExitStack() as stack:
            outbox = stack.enter_context(Outbox(zmq_context, self._consumer))
            pool = stack.enter_context(_pool(device, "producer/0.0@gpu#1", task.slots, task.nbytes))
            sources = stack.enter_context(_pool(device, "sources", SOURCES, task.nbytes))
            stream = stack.enter_context(Stream(device))
            events = [stack.enter_context(Event(device)) for _ in range(task.slots)]
            offer = Offer(pool=pool.address, seed=os.urandom(8))
            for number in range(SOURCES):
                source = item_bytes(offer.seed, number, task.nbytes)
                _copy_now(stream, sources.pointer + number * task.nbytes, _address(source), source)
            if not task.touch:  # its slots hold something, for the copies alone
                for slot in range(task.slots):
                    stream.copy(pool.pointer + slot * task.nbytes, sources.pointer, task.nbytes)
                stream.synchronize()
            self._offers.put(msgspec.msgpack.encode(offer))
            stamps: Stamps = []
            with Waiter(device) as waiter:
                if task.touch:
                    slots = SlotPool(pool.address.name, num_slots=task.slots)
                    sending = _Sending(task, slots, stream, events, waiter, outbox, stamps)
                    sending.run(pool, sources, inbox)
            if task.touch:  # the waiter has ended: the outbox is ours again
                outbox.send(CloseJob(sender="producer/0", incarnation=0))
            self._wait_closed(inbox)
        return stamps

    @staticmethod
    def _wait_closed(inbox: Inbox) -> None:
        """Wait for the consumer to close the pool: its owner frees it last."""
        assert isinstance(inbox.wait(), CloseJob)

    def _consume(self, device: Device, zmq_context: ZmqContext, inbox: Inbox, task: Task) -> Stamps:
        offer = msgspec.msgpack.decode(self._offers.get(), type=Offer)
        with Outbox(zmq_context, self._producer) as outbox:
            with ExitStack() as stack:
                pool = stack.enter_context(OpenedPool(device, offer.pool))
                targets = stack.enter_context(_pool(device, "targets", TARGETS, task.nbytes))
                stream = stack.enter_context(Stream(device))
                _poison(stream, targets, task.nbytes)
                if not task.touch:
                    stamps = _copy_alone(task, stream, targets.pointer, pool.pointer)
                else:
                    stamps = []
                    taking = _Taking(task, device, stream, outbox)
                    last = taking.run(pool, targets, inbox)
                    _check(stream, targets, task.nbytes, offer.seed, last)
            outbox.send(CloseJob(sender="consumer/0", incarnation=0))
        return stamps


class _Sending:
    """The producer's loop of one task."""

    def __init__(
        self,
        task: Task,
        slots: SlotPool,
        stream: Stream,
        events: list[Event],
        waiter: Waiter,
        outbox: Outbox,
        stamps: Stamps,
    ) -> None:
        self._task, self._slots, self._stream, self._events = task, slots, stream, events
        self._waiter, self._outbox, self._stamps = waiter, outbox, stamps
        self._begun: dict[int, int] = {}  # when, by item

    def run(self, pool: CudaPool, sources: CudaPool, inbox: Inbox) -> None:
        """Send all items, and wait until all slots are free again."""
        nbytes = self._task.nbytes
        for item in self._task.items():
            self._take(inbox)
            while not self._slots.can_lease(item, 0):
                self._freed(inbox.wait())
            slot = self._slots.lease(item, 0, ("read",))
            self._begun[item] = time.monotonic_ns()
            source = sources.pointer + item % SOURCES * nbytes
            self._stream.copy(pool.pointer + slot * nbytes, source, nbytes)
            self._events[slot].record(self._stream)
            ready = _ready(item, pool.address.name, slot, nbytes)
            self._waiter.after(self._events[slot], partial(_send, self._outbox, ready))
        while self._slots.leases():
            self._freed(inbox.wait())

    def _take(self, inbox: Inbox) -> None:
        while (message := inbox.try_receive()) is not None:
            self._freed(message)

    def _freed(self, message: AnyMessage) -> None:
        assert isinstance(message, SlotFreed)
        self._slots.free(message.slot, message.item, message.attempt, message.reader)
        self._stamps.append((self._begun.pop(message.item), time.monotonic_ns()))


class _Taking:
    """The consumer's loop of one task."""

    def __init__(self, task: Task, device: Device, stream: Stream, outbox: Outbox) -> None:
        self._task, self._device = task, device
        self._stream, self._outbox = stream, outbox

    def run(self, pool: OpenedPool, targets: CudaPool, inbox: Inbox) -> int:
        """Take items until the producer closes; return the number of the last."""
        nbytes, last = self._task.nbytes, -1
        with ExitStack() as stack:
            events = [stack.enter_context(Event(self._device)) for _ in range(self._task.slots)]
            waiter = stack.enter_context(Waiter(self._device))
            while isinstance(ready := inbox.wait(), ItemReady):
                slot, last = ready.handles["x"].slot, ready.item
                target = targets.pointer + last % TARGETS * nbytes
                self._stream.copy(target, pool.pointer + slot * nbytes, nbytes)
                events[slot].record(self._stream)
                waiter.after(events[slot], partial(_send, self._outbox, _slot_freed(ready)))
        return last


def item_bytes(seed: bytes, item: int, nbytes: int) -> Bytes:
    """Return the bytes of an item: noise, the same ones for every SOURCES-th."""
    numbers = np.random.default_rng([*seed, item % SOURCES])
    return numbers.integers(0, 256, nbytes, np.uint8)


def _pool(device: Device, name: str, num_slots: int, slot_bytes: int) -> CudaPool:
    return CudaPool(device, name, owner="producer/0", num_slots=num_slots, slot_bytes=slot_bytes)


def _address(array: Bytes) -> int:
    return int(array.ctypes.data)


def _copy_now(stream: Stream, target: int, source: int, array: Bytes) -> None:
    """Copy all of a host array, which is kept alive until that is done."""
    stream.copy(target, source, array.nbytes)
    stream.synchronize()


def _poison(stream: Stream, targets: CudaPool, nbytes: int) -> None:
    poison = np.full(nbytes, POISON, np.uint8)
    for place in range(TARGETS):
        _copy_now(stream, targets.pointer + place * nbytes, _address(poison), poison)


def _check(stream: Stream, targets: CudaPool, nbytes: int, seed: bytes, last: int) -> None:
    """See that the last items of a run have arrived, each in its place.

    Raises:
        AssertionError: other bytes are there.
    """
    found = np.empty(nbytes, np.uint8)
    for item in range(max(0, last - TARGETS + 1), last + 1):
        _copy_now(stream, _address(found), targets.pointer + item % TARGETS * nbytes, found)
        assert np.array_equal(found, item_bytes(seed, item, nbytes)), f"item {item} has other bytes"


def _copy_alone(task: Task, stream: Stream, target: int, source: int) -> Stamps:
    """Copy whole slots back to back; return begin and end of RAW_COPIES each."""
    stamps: Stamps = []
    for _ in task.items():
        began = time.monotonic_ns()
        for number in range(RAW_COPIES):
            slot, place = number % task.slots, number % TARGETS
            stream.copy(target + place * task.nbytes, source + slot * task.nbytes, task.nbytes)
        stream.synchronize()
        stamps.append((began, time.monotonic_ns()))
    return stamps


def _send(outbox: Outbox, message: AnyMessage, error: CudaError | None) -> None:
    """Say in the waiter's thread, which alone uses the outbox meanwhile, that a copy is done."""
    if error is not None:
        os.write(2, f"a copy failed: {error}\n".encode())
        os._exit(1)  # the other end is told by our death
    outbox.send(message)


def _ready(item: int, pool: str, slot: int, nbytes: int) -> ItemReady:
    handle = TensorHandle(pool=pool, slot=slot, offset=0, shape=(nbytes,), dtype="uint8")
    return ItemReady(
        sender="producer/0",
        incarnation=0,
        stage="read",
        item=item,
        attempt=0,
        handles={"x": handle},
        meta=b"",
        failed="",
    )


def _slot_freed(ready: ItemReady) -> SlotFreed:
    handle = ready.handles["x"]
    return SlotFreed(
        sender="consumer/0",
        incarnation=0,
        pool=handle.pool,
        slot=handle.slot,
        item=ready.item,
        attempt=ready.attempt,
        reader=ready.stage,
    )
