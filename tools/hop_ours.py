"""One hop as runpipe goes it: the contender of tools/bench_hop.py that the others are compared to.

Both loops have the shape of runtime/worker.py: take all messages, do one item; when idle, wait for
one message and act upon it.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from multiprocessing.context import SpawnContext
from pathlib import Path
from typing import Any, ClassVar

import zmq

from ipc.channel import Inbox, Outbox
from ipc.host import MappedPool
from ipc.messages import AnyMessage, ItemReady, SlotFreed
from ipc.pool import SlotPool
from ipc.records import PoolAddress, TensorHandle
from ipc.setup_messages import CloseJob
from runtime.views import Views
from tools.hop_pair import End, Stamps, Task, read, write

ZmqContext = zmq.Context[zmq.Socket[bytes]]


class Runpipe:
    """A leased slot of a memfd pool, written and read in place; `ItemReady` and `SlotFreed`."""

    name: ClassVar[str] = "runpipe"
    copies: ClassVar[int] = 0
    how: ClassVar[str] = "written into a leased memfd slot and read there; a handle travels"
    wants_pool: ClassVar[bool] = True

    def __init__(self, _mp_context: SpawnContext, folder: Path) -> None:
        self._producer, self._consumer = f"ipc://{folder}/producer", f"ipc://{folder}/consumer"

    @staticmethod
    def missing(_nbytes: int) -> str:
        """Nothing."""
        return ""

    @contextmanager
    def producer(self) -> Iterator[End]:
        """Lease, write, send; free what comes back, in whatever order."""
        with zmq.Context() as zmq_context, Inbox(zmq_context, self._producer) as inbox:
            yield partial(self._produce, zmq_context, inbox)

    @contextmanager
    def consumer(self) -> Iterator[End]:
        """Take, read, free."""
        with zmq.Context() as zmq_context, Inbox(zmq_context, self._consumer) as inbox:
            yield partial(self._consume, zmq_context, inbox)

    def _produce(self, zmq_context: ZmqContext, inbox: Inbox, task: Task) -> Stamps:
        assert task.pool is not None
        with (
            Outbox(zmq_context, self._consumer) as outbox,
            MappedPool(task.pool, writable=True) as pool,
        ):
            views = Views(pool.array(), slot_bytes=task.nbytes, library="numpy")
            slots = SlotPool(task.pool.name, num_slots=task.slots)
            freed = partial(_freed, slots)
            for item in task.items():
                _take(inbox, freed)
                while not slots.can_lease(item, 0):
                    freed(inbox.wait())
                handle = _handle(task.pool, slots.lease(item, 0, ("read",)), task.nbytes)
                if task.touch:
                    write(_view(views, handle), item)
                outbox.send(_ready(item, handle))
            while slots.leases():
                freed(inbox.wait())
            outbox.send(CloseJob(sender="producer/0", incarnation=0))
            del views
        return []

    def _consume(self, zmq_context: ZmqContext, inbox: Inbox, task: Task) -> Stamps:
        assert task.pool is not None
        stamps: Stamps = []
        with (
            Outbox(zmq_context, self._producer) as outbox,
            MappedPool(task.pool, writable=False) as pool,
        ):
            views = Views(pool.array(), slot_bytes=task.nbytes, library="numpy")
            queue = deque[AnyMessage]()
            while True:
                _take(inbox, queue.append)
                while not queue:
                    queue.append(inbox.wait())
                ready = queue.popleft()
                if not isinstance(ready, ItemReady):
                    break
                if task.touch:
                    read(_view(views, ready.handles["x"]), ready.item)
                stamps.append((int.from_bytes(ready.meta, "big"), time.monotonic_ns()))
                outbox.send(_slot_freed(ready))
            del views
        return stamps


def _take(inbox: Inbox, handle: Callable[[AnyMessage], None]) -> None:
    while (message := inbox.try_receive()) is not None:
        handle(message)


def _view(views: Views, handle: TensorHandle) -> Any:  # noqa: ANN401 - numpy's here
    return views.tensor(handle)


def _handle(pool: PoolAddress, slot: int, nbytes: int) -> TensorHandle:
    return TensorHandle(pool=pool.name, slot=slot, offset=0, shape=(nbytes,), dtype="uint8")


def _ready(item: int, handle: TensorHandle) -> ItemReady:
    return ItemReady(
        sender="producer/0",
        incarnation=0,
        stage="read",
        item=item,
        attempt=0,
        handles={"x": handle},
        meta=time.monotonic_ns().to_bytes(8, "big"),
        failed="",
    )


def _freed(slots: SlotPool, message: AnyMessage) -> None:
    assert isinstance(message, SlotFreed)
    slots.free(message.slot, message.item, message.attempt, message.reader)


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
