"""What a worker did and when, as its main thread writes it down: slices of run, copy and wait.

A slice is a record of 24 bytes in memory that the supervisor made and reads at the end of the run
(`runtime/run_trace.py`); so a killed worker loses nothing, and nobody writes a file while items
run. A record is there from the moment its slice begins: what a worker died in can be seen too.
Memory is bounded: past its last record a worker traces no more.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from numpy.typing import NDArray

from ipc.host import MappedPool
from ipc.records import PoolAddress

MAX_RECORDS = 200_000  # of one worker and job: 4.6 MiB
NAMES_BYTES = 8192  # before the records: what `name` of a record counts in, each ended by a zero
MAX_NAMES = 256
OTHER = "other"  # the first name; stands for those past the limit

RUN, FAILED, WAIT, PART, STEP = 1, 2, 3, 4, 5  # kinds; 0: no record, or a torn one
COPY_IN, COPY_OUT = 6, 7  # beside runs, on a GPU
RECORD = np.dtype(
    [
        ("begin", "f8"),  # time.monotonic(), one clock for all processes of a host
        ("end", "f8"),  # 0: it has not ended
        ("item", "i4"),  # -1: none
        ("attempt", "u2"),
        ("name", "u1"),
        ("kind", "u1"),
    ]
)
_WORD = 8  # bytes; a record is three, its begin, its end, and the rest, which is written last
_WORDS = 3
_ITEM, _ATTEMPT, _NAME, _KIND = 0xFFFFFFFF, 32, 48, 56  # where it is in the rest
_SETUP_RECORDS = 256  # kept before a job is open: its steps are few
Traced = tuple[tuple[str, ...], NDArray[np.void]]


def trace_bytes(max_records: int) -> int:
    """Return the size of the memory for so many records."""
    return NAMES_BYTES + max_records * RECORD.itemsize


def read_trace(data: NDArray[np.uint8]) -> Traced:
    """Return the names and a copy of the records in `data`, whose writer may be at work or dead."""
    records = data[NAMES_BYTES:].view(RECORD)
    kinds = records["kind"]
    num_records = int(np.argmin(kinds != 0)) if len(kinds) and not kinds.all() else len(kinds)
    copied = records[:num_records].copy()  # before the names, which are written first
    names = data[:NAMES_BYTES].tobytes().split(b"\0")
    return tuple(name.decode(errors="replace") for name in names if name), copied


class Recorder:
    """The slices of one thread. Until `open` it keeps them to itself, then where it is told."""

    _data: memoryview
    _times: memoryview[float]  # the same as floating point numbers
    _rests: memoryview[int]  # and as unsigned ones
    _next: int  # the word where the next record goes
    _end: int  # the word after the last one's

    def __init__(self) -> None:
        self._pool: MappedPool | None = None
        self._use(memoryview(bytearray(trace_bytes(_SETUP_RECORDS))))

    def open(self, address: PoolAddress | None = None) -> None:
        """Trace to this memory, what was kept first; None: not at all."""
        if address is None:
            self._use(memoryview(bytearray(trace_bytes(0))))
            return
        self._pool = MappedPool(address, writable=True)
        kept, used = self._data, self._next
        self._see(self._pool.array().data)
        self._next = min(used, self._end)
        self._data[: self._next * _WORD] = kept[: self._next * _WORD]

    def close(self) -> None:
        """Give the memory up; what comes is kept for the next `open`. Safe to call twice."""
        self._use(memoryview(bytearray(trace_bytes(_SETUP_RECORDS))))
        if self._pool is not None:
            self._pool.close()
            self._pool = None

    def _use(self, data: memoryview) -> None:
        """Begin anew in `data`, which is all zero."""
        self._see(data)
        self._next = NAMES_BYTES // _WORD
        self._names: dict[str, int] = {}
        self._names_used = 0
        self._index(OTHER)
        self._run = self._wait = 0  # where the open slice lies; 0: there is none
        self._waits_for = ("", -1)
        self._stepped = 0.0  # when the last step ended

    def _see(self, data: memoryview) -> None:
        self._data, self._times, self._rests = data, data.cast("d"), data.cast("Q")
        self._end = len(data) // _WORD

    def run(self, stage: str, item: int, attempt: int, began: float) -> None:
        """A stage takes an item."""
        if self._wait:
            self._times[self._wait + 1] = began
            self._wait = 0
        self._run = self._begin(RUN, stage, item, attempt, began)

    def ran(self, ended: float, *, failed: bool) -> None:
        """It is done with it."""
        if self._run:
            self._times[self._run + 1] = ended
            if failed:
                self._rests[self._run + 2] += (FAILED - RUN) << _KIND
            self._run = 0

    def wait(self, what: str, item: int, since: float) -> None:
        """Nothing can run until `what` comes, or that `item`; -1: whichever it is."""
        if self._wait:
            if self._waits_for == (what, item):
                return
            since = self._times[self._wait + 1] = time.monotonic()
        elif since < self._stepped:
            since = self._stepped
        self._waits_for = what, item
        self._wait = self._begin(WAIT, what, item, 0, since)

    @contextmanager
    def part(self, what: str) -> Iterator[None]:
        """A part of what runs now: a copy."""
        with self._slice(PART, what):
            yield

    @property
    def is_on(self) -> bool:
        """Whether what is told is kept for anybody."""
        return self._end > NAMES_BYTES // _WORD

    def copied(self, kind: int, item: int, began: float, ended: float) -> None:
        """A copy of an item is done, that went on beside runs."""
        if at := self._begin(kind, "copy", item, 0, began):
            self._times[at + 1] = ended

    @contextmanager
    def step(self, what: str) -> Iterator[None]:
        """What comes before or after the items: whoever does it awaits no item any more."""
        if self._wait:
            self._next, self._wait = self._wait, 0  # the step's record takes its place
        with self._slice(STEP, what):
            yield
        self._stepped = time.monotonic()

    @contextmanager
    def _slice(self, kind: int, what: str) -> Iterator[None]:
        at = self._begin(kind, what, -1, 0, time.monotonic())
        try:
            yield
        finally:
            if at:
                self._times[at + 1] = time.monotonic()

    def _begin(self, kind: int, name: str, item: int, attempt: int, began: float) -> int:
        """Write a record that has no end yet; return where it lies, 0 if there is no room."""
        at = self._next
        if at >= self._end:
            return 0
        index = self._names.get(name)
        if index is None:
            index = self._index(name)
        self._times[at] = began
        self._rests[at + 2] = kind << _KIND | index << _NAME | attempt << _ATTEMPT | item & _ITEM
        self._next = at + _WORDS
        return at

    def _index(self, name: str) -> int:
        written = name.replace("\0", "").encode() + b"\0"
        used = self._names_used
        if len(self._names) == MAX_NAMES or used + len(written) > NAMES_BYTES or len(written) == 1:
            return 0
        self._data[used : used + len(written)] = written
        self._names_used += len(written)
        return self._names.setdefault(name, len(self._names))

    def read(self) -> Traced:
        """Return what was kept."""
        return read_trace(np.frombuffer(self._data, np.uint8))
