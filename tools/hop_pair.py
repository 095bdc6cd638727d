"""What tools/bench_hop.py compares, seen from outside: tasks, contenders, and their processes.

A contender has two ends, each a context manager that gives a function; both get the same `Task`, in
two processes. All keep the same window: an item is under way from before its first byte is written
until its last has been read, and at most `Task.slots` are. Stamps are CLOCK_MONOTONIC, which is one
clock for all processes of a host.
"""

from __future__ import annotations

import itertools
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, suppress
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnContext, SpawnProcess
from pathlib import Path
from typing import ClassVar, Protocol

import msgspec
import numpy as np
from numpy.typing import NDArray

from ipc.host import HostPool
from ipc.records import PoolAddress
from runtime.parent import die_with

SLOTS = 4
WARM_UP = SLOTS  # first items of a run, not counted: their pages are new
LEAST_ITEMS = WARM_UP + 8  # however short the run
ANSWER_S = 120.0  # beyond a task's own time; importing torch from a cold disk takes long
SIGNALS_S = 0.5  # how long an interruption may go unnoticed
GRACE_S = 10.0  # for ending by SIGTERM

Stamps = list[tuple[int, int]]  # (sent, received and touched) of each item, ns
End = Callable[["Task"], Stamps]  # one of the two returns stamps, the other none


class Task(msgspec.Struct, frozen=True, kw_only=True):
    """One run of one contender."""

    nbytes: int  # of an item; a multiple of 8
    seconds: float
    slots: int  # most items under way
    touch: bool  # False: the message alone, no byte written or read
    pool: PoolAddress | None = None

    def items(self) -> Iterator[int]:
        """Yield item numbers until the time is up."""
        deadline = time.monotonic() + self.seconds
        for item in itertools.count():
            if item >= LEAST_ITEMS and time.monotonic() >= deadline:
                return
            yield item


class Contender(Protocol):
    """One way to get an array from process to process. Travels to both when they start."""

    name: ClassVar[str]
    copies: ClassVar[int]  # of an item's bytes, between writing and reading them
    how: ClassVar[str]
    wants_pool: ClassVar[bool]  # in `Task.pool`

    def __init__(self, mp_context: SpawnContext, folder: Path) -> None: ...

    @staticmethod
    def missing(nbytes: int) -> str:
        """Say what it lacks here for items of this size; "" when it can run."""

    def producer(self) -> AbstractContextManager[End]:
        """Give the sending end."""

    def consumer(self) -> AbstractContextManager[End]:
        """Give the receiving end."""


def write(array: NDArray[np.uint8], item: int) -> None:
    """Write every byte."""
    array.view(np.uint64).fill(item)


def read(array: NDArray[np.uint8], item: int) -> None:
    """Read every byte, and see that it is this item's."""
    words = array.view(np.uint64)
    assert int(words.sum()) == item * words.size, f"item {item} came with another's bytes"


class EndDied(RuntimeError):
    """A process of a contender ended, or did not answer."""


_task, _stamps = msgspec.msgpack.Decoder(Task), msgspec.msgpack.Decoder(Stamps)


class Pair:
    """Owns the two processes of a contender. A death ends the benchmark: nobody waits for it."""

    def __init__(self, contender: Contender, mp_context: SpawnContext) -> None:
        self._contender = contender
        self._ends: dict[str, tuple[SpawnProcess, Connection]] = {}
        with ExitStack() as stack:
            for end in ("producer", "consumer"):
                ours, theirs = mp_context.Pipe()
                stack.callback(ours.close)
                process = mp_context.Process(
                    target=_serve, args=(contender, end, theirs, os.getpid()), daemon=True
                )
                _start(process)
                stack.callback(_stop, process)
                theirs.close()
                self._ends[end] = process, ours
            self._answers(ANSWER_S)
            self._exit = stack.pop_all()

    def run(self, task: Task) -> Stamps:
        """Run a task at both ends and return the stamps of its items.

        Raises:
            EndDied: one of them ended, or does not end its task.
        """
        with ExitStack() as stack:
            if self._contender.wants_pool:
                pool = HostPool(
                    "producer/0.0@host#1",
                    owner="producer/0",
                    num_slots=task.slots,
                    slot_bytes=task.nbytes,
                )
                stack.callback(pool.close)
                task = msgspec.structs.replace(task, pool=pool.address)
            for _process, connection in self._ends.values():
                connection.send_bytes(msgspec.msgpack.encode(task))
            return [one for stamps in self._answers(task.seconds + ANSWER_S) for one in stamps]

    def _answers(self, timeout_s: float) -> list[Stamps]:
        """Wait for an answer of each end."""
        answers, name = [], self._contender.name
        waiting = {connection: end for end, (_process, connection) in self._ends.items()}
        sentinels = {process.sentinel: end for end, (process, _connection) in self._ends.items()}
        deadline = time.monotonic() + timeout_s
        while waiting:
            # A signal that comes just before the wait is only seen after it, so it is a short one.
            ready = wait([*waiting, *sentinels], SIGNALS_S)
            if not ready and time.monotonic() > deadline:
                raise EndDied(f"{name}: no answer for {timeout_s:.0f} s")
            for sentinel in sentinels.keys() & ready:
                raise EndDied(f"{name}: its {sentinels[sentinel]} died; see above")
            for connection in waiting.keys() & ready:
                try:
                    answers.append(_stamps.decode(connection.recv_bytes()))
                except EOFError as error:
                    raise EndDied(f"{name}: its {waiting[connection]} died; see above") from error
                del waiting[connection]
        return answers

    def __enter__(self) -> Pair:
        """Return the pair."""
        return self

    def __exit__(self, kind: type[BaseException] | None, *_error: object) -> None:
        """End both processes: gently, or at once if something went wrong."""
        for process, connection in self._ends.values():
            connection.close()  # an idle end takes that for its end
            process.join(GRACE_S if kind is None else 0)
        self._exit.close()


def _start(process: SpawnProcess) -> None:
    """Start a process that never hears Ctrl-C, which is for the benchmark.

    Blocked, not ignored: a Ctrl-C that comes meanwhile is heard afterwards.
    """
    resource_tracker.ensure_running()  # it unblocks what it has blocked
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # is inherited
    try:
        process.start()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _stop(process: SpawnProcess) -> None:
    process.terminate()
    process.join(GRACE_S)
    process.kill()
    process.join()
    process.close()


def _serve(contender: Contender, end: str, connection: Connection, parent: int) -> None:
    """Be one end: answer every task, until the connection closes, terminated, or orphaned."""
    die_with(parent)
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))  # nothing here outlives the process
    with contender.producer() if end == "producer" else contender.consumer() as run:
        connection.send_bytes(msgspec.msgpack.encode([]))
        with suppress(EOFError):
            while True:
                task = _task.decode(connection.recv_bytes())
                connection.send_bytes(msgspec.msgpack.encode(run(task)))
