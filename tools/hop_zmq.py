"""ZeroMQ alone, as a contender of tools/bench_hop.py: what a hop costs before anything is ours.

Two sockets, no message types, no poller: each end blocks in `recv`. So the message alone is the
least that a hop over ZeroMQ can take on this machine, at this moment.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from multiprocessing.context import SpawnContext
from pathlib import Path
from typing import ClassVar

import numpy as np
import zmq

from tools.hop_pair import End, Stamps, Task, read, write

Socket = zmq.Socket[bytes]

_END = b""  # instead of a stamp: the task is done


class BareZmq:
    """The bytes themselves as a message, and an empty one back for each."""

    name: ClassVar[str] = "zeromq"
    # into the socket, out of it, and the bytes object that the array then lies in
    copies: ClassVar[int] = 3
    how: ClassVar[str] = "PUSH and PULL sockets, blocking: the bytes are the message"
    wants_pool: ClassVar[bool] = False

    def __init__(self, _mp_context: SpawnContext, folder: Path) -> None:
        self._there, self._back = f"ipc://{folder}/there", f"ipc://{folder}/back"

    @staticmethod
    def missing(_nbytes: int) -> str:
        """Nothing."""
        return ""

    @contextmanager
    def producer(self) -> Iterator[End]:
        """Make an item, write, send; have no more under way than the window."""
        with (
            zmq.Context() as zmq_context,
            _socket(zmq_context, zmq.PULL, self._back) as back,
            _socket(zmq_context, zmq.PUSH, self._there) as there,
        ):
            yield partial(_produce, there, back)

    @contextmanager
    def consumer(self) -> Iterator[End]:
        """Receive, read, send a credit."""
        with (
            zmq.Context() as zmq_context,
            _socket(zmq_context, zmq.PULL, self._there) as there,
            _socket(zmq_context, zmq.PUSH, self._back) as back,
        ):
            yield partial(_consume, there, back)


def _socket(zmq_context: zmq.Context[Socket], kind: int, endpoint: str) -> Socket:
    """Return the end of a pair that either may open first."""
    socket = zmq_context.socket(kind)
    socket.linger = 0
    if kind == zmq.PULL:
        socket.bind(endpoint)
    else:
        socket.connect(endpoint)
    return socket


def _produce(there: Socket, back: Socket, task: Task) -> Stamps:
    under_way = 0
    for item in task.items():
        if under_way == task.slots:
            back.recv()
            under_way -= 1
        array = np.empty(task.nbytes, np.uint8)
        if task.touch:
            write(array, item)
        there.send(time.monotonic_ns().to_bytes(8, "big"), zmq.SNDMORE)
        there.send(array, copy=False)
        under_way += 1
    for _credit in range(under_way):
        back.recv()
    there.send(_END)
    return []


def _consume(there: Socket, back: Socket, task: Task) -> Stamps:
    stamps: Stamps = []
    while (stamp := there.recv()) != _END:
        array = np.frombuffer(there.recv(), np.uint8)
        if task.touch:
            read(array, len(stamps))
        stamps.append((int.from_bytes(stamp, "big"), time.monotonic_ns()))
        del array
        back.send(b"")
    return stamps
