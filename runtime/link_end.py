"""One end of a link that the doctor tries: a process that sees one GPU, as a worker does.

It uses the GPU as a worker does too: the same streams, the same waiter's thread, which wakes the
main thread by a message, the same pools and the same messages to the other end. A copy stands for
what a stage writes, and for what the next one reads.

Whoever started it has the deadlines; this process waits as long as it takes, and is killed.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from typing import assert_never

import numpy as np
import zmq
from numpy.typing import NDArray

from ipc.channel import Inbox, Outbox
from ipc.cuda import CudaError, Event, Stream
from ipc.errors import IpcError, ProtocolError
from ipc.messages import ItemReady, SlotFreed, Woken
from ipc.records import TensorHandle
from ipc.setup_messages import MakePool
from runtime.gpu_side import SWITCH_S, WAKE
from runtime.link_messages import (
    Answer,
    CloseLink,
    Command,
    CopySlots,
    Done,
    Failed,
    GpuOpened,
    ItemsSent,
    OpenGpu,
    OpenLink,
    SendItems,
    SlotsCopied,
    TakeItems,
    command_of,
    line_of,
)
from runtime.link_pool import LinkPool
from runtime.parent import die_with
from runtime.path import Identity
from runtime.worker_gpu import GpuLost, WorkerGpu

WARM_UP_COPIES = 2  # the first ones find other clocks, and mappings that nobody has used
PLACE, SOURCE = 0, 1  # slots: where items come and go, and what our own are copied from


class LinkEnd:
    """Does what it is told, one command after the other. Belongs to the main thread."""

    def __init__(
        self, name: str, zmq_context: zmq.Context[zmq.Socket[bytes]], inbox: Inbox
    ) -> None:
        self._identity = Identity(sender=name, incarnation=0)
        self._zmq_context, self._inbox = zmq_context, inbox
        inbox.socket.bind(WAKE)
        self._wakes = Outbox(zmq_context, WAKE)  # for the waiter's thread alone
        self._gpu: WorkerGpu | None = None
        self._link: LinkPool | None = None

    def answer(self, command: Command) -> Answer:
        """Do it.

        Raises:
            IpcError, GpuLost: it cannot be done.
        """
        match command:
            case OpenGpu():
                return self._open(command)
            case OpenLink():
                self._link = LinkPool(self._opened(), command)
            case CloseLink():
                self._close_link()
            case SendItems():
                return self._send(command)
            case TakeItems():
                self._take(command)
            case CopySlots():
                return self._copy(command)
            case _:
                assert_never(command)
        return Done()

    def _open(self, command: OpenGpu) -> GpuOpened:
        woken = Woken(**self._identity)
        self._gpu = WorkerGpu(self._identity, lambda: self._wakes.send(woken))
        self._event = Event(self._gpu.device)
        made = self._gpu.make_pool(
            MakePool(
                **self._identity,
                pool=f"{self._identity['sender']}@gpu",
                num_slots=command.num_slots,
                slot_bytes=command.slot_bytes,
            )
        )
        if made.error:
            raise IpcError(made.error)
        return GpuOpened(pool=made.address[0])

    def _opened(self) -> WorkerGpu:
        assert self._gpu is not None, "asked before `OpenGpu`"
        return self._gpu

    def _send(self, command: SendItems) -> ItemsSent:
        gpu, link, spent = self._opened(), self._link, []
        stream = link.stream if link else gpu.compute
        target = link.pointer(PLACE) if link else _own(gpu, PLACE)
        self._copy_now(_own(gpu, SOURCE), _address(data := item_bytes(command)), data.nbytes)
        with Outbox(self._zmq_context, command.reader) as outbox:
            for item in range(command.count):
                began_ns = time.monotonic_ns()
                stream.copy(target, _own(gpu, SOURCE), command.nbytes)
                self._wait_for(stream)
                outbox.send(self._ready(item, command.nbytes))
                freed = self._inbox.wait()
                if not isinstance(freed, SlotFreed) or freed.item != item:
                    raise ProtocolError(f"item {item} was answered by {freed}")
                spent.append(time.monotonic_ns() - began_ns)
        return ItemsSent(round_trips_ns=tuple(spent))

    def _take(self, command: TakeItems) -> None:
        gpu, link = self._opened(), self._link
        assert link is not None, "a reader has the pool open"
        with Outbox(self._zmq_context, command.owner) as outbox:
            for item in range(command.count):
                ready = self._inbox.wait()
                if not isinstance(ready, ItemReady) or ready.item != item:
                    raise ProtocolError(f"item {item} did not come, but {ready}")
                source = link.pointer(ready.handles["x"].slot)
                link.stream.copy(_own(gpu, PLACE), source, command.nbytes)
                self._wait_for(link.stream)
                outbox.send(self._freed(ready))
        found = np.empty(command.nbytes, np.uint8)
        self._copy_now(_address(found), _own(gpu, PLACE), found.nbytes)
        if not np.array_equal(found, item_bytes(command)):
            raise IpcError("what arrived is not what was written")

    def _copy(self, command: CopySlots) -> SlotsCopied:
        gpu, link = self._opened(), self._link
        assert link is not None, "copies need a pool of somebody else"
        address = link.address

        def queue(count: int) -> None:
            for number in range(count):
                slot = number % address.num_slots
                ends = _own(gpu, slot), link.pointer(slot)
                target, source = reversed(ends) if link.is_writable else ends
                link.stream.copy(target, source, address.slot_bytes)

        queue(WARM_UP_COPIES)
        self._wait_for(link.stream)
        began_ns = time.monotonic_ns()
        queue(command.count)
        self._wait_for(link.stream)
        return SlotsCopied(began_ns=began_ns, ended_ns=time.monotonic_ns())

    def _wait_for(self, stream: Stream) -> None:
        """Wait as a worker does: the waiter's thread wakes us when what is queued is done."""
        gpu = self._opened()
        self._event.record(stream)
        gpu.after(self._event, "copied")
        message = self._inbox.wait()
        if not isinstance(message, Woken):
            raise ProtocolError(f"waited for our own copy, got {message}")
        if list(gpu.done()) != ["copied"]:
            raise ProtocolError("woken for something else")

    def _copy_now(self, target: int, source: int, nbytes: int) -> None:
        stream = self._opened().copy_in
        stream.copy(target, source, nbytes)
        self._wait_for(stream)

    def _ready(self, item: int, nbytes: int) -> ItemReady:
        handle = TensorHandle(pool="link", slot=PLACE, offset=0, shape=(nbytes,), dtype="uint8")
        return ItemReady(
            **self._identity,
            stage="read",
            item=item,
            attempt=0,
            handles={"x": handle},
            meta=b"",
            failed="",
        )

    def _freed(self, ready: ItemReady) -> SlotFreed:
        handle = ready.handles["x"]
        return SlotFreed(
            **self._identity,
            pool=handle.pool,
            slot=handle.slot,
            item=ready.item,
            attempt=ready.attempt,
            reader=ready.stage,
        )

    def _close_link(self) -> None:
        if self._link is not None:
            link, self._link = self._link, None
            link.close()

    def close(self) -> None:
        """Give everything back."""
        if self._gpu is not None:
            self._gpu.settle()
            self._close_link()
            self._event.close()
            self._gpu.close()
        self._wakes.close()


def item_bytes(command: SendItems | TakeItems) -> NDArray[np.uint8]:
    """Return what is sent, the same at both ends."""
    return np.random.default_rng(command.seed).integers(0, 256, command.nbytes, np.uint8)


def _own(gpu: WorkerGpu, slot: int) -> int:
    assert gpu.pool is not None, "made by `OpenGpu`"
    return gpu.pool.pointer + slot * gpu.pool.address.slot_bytes


def _address(array: NDArray[np.uint8]) -> int:
    return int(array.ctypes.data)


def main() -> None:
    """Be an end, until standard input closes. Started by `runpipe doctor`, not by people."""
    parser = argparse.ArgumentParser(prog="runtime.link_end", description=main.__doc__)
    parser.add_argument("--name", required=True)
    parser.add_argument("--endpoint", required=True, help="where this end binds its inbox")
    parser.add_argument("--parent-pid", type=int, required=True)
    arguments = parser.parse_args()
    die_with(arguments.parent_pid)
    sys.setswitchinterval(SWITCH_S)
    answers = os.dup(1)
    os.dup2(2, 1)  # whatever a library prints is no answer
    with zmq.Context() as zmq_context, Inbox(zmq_context, arguments.endpoint) as inbox:
        end = LinkEnd(arguments.name, zmq_context, inbox)
        for line in sys.stdin.buffer:
            try:
                answer = end.answer(command_of(line))
            except (IpcError, GpuLost) as error:
                cause = error.__cause__ if isinstance(error, GpuLost) else error
                is_lost = isinstance(cause, CudaError) and cause.is_lost
                answer = Failed(error=str(error), is_lost=is_lost)
            os.write(answers, line_of(answer))
        end.close()


if __name__ == "__main__":
    main()
