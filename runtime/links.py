"""Which GPUs reach each other, and how fast: tried between processes, as those of a run are.

Every GPU is opened by a process of its own, and by a second one for the link to itself, since no
process opens its own pool. Nothing here fails over a GPU: what does not work is said in its place.
"""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from ipc.errors import NoMemory
from ipc.host import HostPool
from ipc.records import PoolAddress
from runtime.host import ROOT, Gpu, usable_memory
from runtime.link_messages import (
    Answer,
    CloseLink,
    Command,
    CopySlots,
    Failed,
    GpuOpened,
    ItemsSent,
    OpenGpu,
    OpenLink,
    SendItems,
    SlotsCopied,
    TakeItems,
)
from runtime.link_process import EndProcess, ask, end_all
from runtime.transports import COPY, HOST, VIEW

MIB = 2**20
LARGE_BYTES, SMALL_BYTES = 64 * MIB, MIB
NUM_SLOTS = 2  # copies from the one and the other, so that no cache holds what comes next
ROUND_TRIPS, WARM_UP = 200, 20
# Queued at once; that many take some 10 ms between GPUs, and 20 ms through the host.
COPIES = {VIEW: 64, COPY: 64, HOST: 16}
START_S = 60.0  # a driver that has no GPU open yet takes seconds for each
ANSWER_S = 10.0


@dataclass(frozen=True, slots=True)
class Link:
    """How items get from a worker on one GPU to a worker on another, or on the same one."""

    owner: int  # index of the GPU whose worker writes the items
    reader: int
    transport: str  # "cuda-view" | "cuda-copy" | "host"
    error: str  # why it does not work; "" = it does
    gb_per_s: float | None  # of the copies alone, of 64 MiB, queued at once; None: it does not work
    round_trip_us: float | None  # of 1 MiB, written, read and let go of, one at a time: the median


@dataclass(frozen=True, slots=True)
class _Place:
    """Where an end is needed."""

    gpu: int  # place in the list of GPUs
    is_second: bool  # the other end of the link of a GPU to itself


class _LinkFailed(Exception):
    pass


def measure_links(gpus: Sequence[Gpu]) -> tuple[Link, ...]:
    """Try every pair of GPUs by every transport, one after the other."""
    places = range(len(gpus))
    with _Ends(gpus) as ends:
        links = [
            ends.measure(owner, reader, transport)
            for group in (itertools.permutations(places, 2), ((gpu, gpu) for gpu in places))
            for owner, reader in ends.opened(group)
            for transport in (VIEW if owner == reader else COPY, HOST)
        ]
    return tuple(sorted(links, key=lambda link: (link.owner, link.reader)))


class _Ends:
    """Owns the processes, and the memory of the host that they share. A with-block."""

    def __init__(self, gpus: Sequence[Gpu]) -> None:
        self._gpus = gpus
        self._ends: dict[_Place, EndProcess] = {}
        self._pools: dict[EndProcess, PoolAddress] = {}
        self._errors: dict[_Place, str] = {}  # they could not be opened, and are not tried again
        self._num_started = 0
        self._seeds = itertools.count()  # of items: what an earlier link left is not taken for them
        self._host_pool: HostPool | None = None
        self._host_error = ""

    def __enter__(self) -> _Ends:
        with ExitStack() as stack:
            self._folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="rp-"))
            stack.callback(lambda: end_all(self._ends.values()))
            self._make_host_pool(stack)
            for gpu in range(len(self._gpus)):  # while the first ones open, the second ones load
                for is_second in (False, True):
                    self._start(_Place(gpu, is_second))
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_error: object) -> None:
        self._stack.close()

    def _make_host_pool(self, stack: ExitStack) -> None:
        if (free := usable_memory(ROOT)) < 2 * NUM_SLOTS * LARGE_BYTES:
            self._host_error = f"the host has only {free / MIB:.0f} MiB free"
            return
        try:
            self._host_pool = HostPool(
                "doctor@host", owner="doctor", num_slots=NUM_SLOTS, slot_bytes=LARGE_BYTES
            )
        except NoMemory as error:
            self._host_error = str(error)
        else:
            stack.callback(self._host_pool.close)

    def _start(self, place: _Place) -> None:
        self._num_started += 1
        name = f"link/{self._num_started}"
        endpoint = f"ipc://{Path(self._folder) / str(self._num_started)}"
        try:
            self._ends[place] = EndProcess(name, self._gpus[place.gpu], endpoint)
        except OSError as error:
            self._errors[place] = f"cannot start a process: {error}"

    def opened(self, pairs: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
        """Have all ends of these pairs open their GPUs, at the same time; return the pairs."""
        listed = list(pairs)
        self._open({place for pair in listed for place in _places(*pair)})
        return listed

    def _open(self, places: Iterable[_Place]) -> None:
        """Have ends open their GPUs, those that have not; start them if they are lost."""
        question = OpenGpu(num_slots=NUM_SLOTS, slot_bytes=LARGE_BYTES)
        wanted: dict[EndProcess, _Place] = {}
        for place in places:
            first = _Place(place.gpu, is_second=False)
            if first in self._errors:  # nor would the second one
                self._errors[place] = self._errors[first]
                continue
            if place in self._ends and self._ends[place].is_lost:
                end_all([self._ends.pop(place)])
                self._start(place)
            if place in self._ends and self._ends[place] not in self._pools:
                wanted[self._ends[place]] = place
        for end, answer in ask(dict.fromkeys(wanted, question), timeout_s=START_S).items():
            if isinstance(answer, GpuOpened):
                self._pools[end] = answer.pool
            else:
                self._errors[wanted[end]] = _error(answer)
                end_all([self._ends.pop(wanted[end])])

    def measure(self, owner: int, reader: int, transport: str) -> Link:
        """Try one link; if it does not work, say why."""
        ids = self._gpus[owner].index, self._gpus[reader].index, transport
        places = _places(owner, reader)
        self._open(places)
        for name, place in zip(("owner", "reader"), places, strict=True):
            if place in self._errors:
                return Link(*ids, f"{name}: {self._errors[place]}", None, None)
        trial = _Trial(*(self._ends[place] for place in places))
        try:
            self._open_link(trial, transport)
            round_trip_us = trial.round_trip_us(seed=next(self._seeds))
            gb_per_s = trial.gb_per_s(transport)
            trial.close()
        except _LinkFailed as error:
            with suppress(_LinkFailed):  # the first reason is the one
                trial.close()
            return Link(*ids, str(error), None, None)
        return Link(*ids, "", gb_per_s, round_trip_us)

    def _open_link(self, trial: _Trial, transport: str) -> None:
        if transport != HOST:
            trial.open({trial.reader: (self._pools[trial.owner], False)})
        elif self._host_pool is None:
            raise _LinkFailed(self._host_error)
        else:
            address = self._host_pool.address
            trial.open({trial.owner: (address, True), trial.reader: (address, False)})


@dataclass(frozen=True, slots=True)
class _Trial:
    """Two ends, and what they are told one after the other."""

    owner: EndProcess
    reader: EndProcess

    def open(self, pools: dict[EndProcess, tuple[PoolAddress, bool]]) -> None:
        """Open the pool where it is not an end's own."""
        questions = {
            end: OpenLink(pool=pool, writable=writable) for end, (pool, writable) in pools.items()
        }
        self._ask(questions)

    def round_trip_us(self, *, seed: int) -> float:
        """Send items one at a time."""
        count = WARM_UP + ROUND_TRIPS
        what = {"nbytes": SMALL_BYTES, "count": count, "seed": seed}
        answers = self._ask(
            {
                self.owner: SendItems(reader=self.reader.endpoint, **what),
                self.reader: TakeItems(owner=self.owner.endpoint, **what),
            }
        )
        sent = answers[self.owner]
        assert isinstance(sent, ItemsSent)
        return median(sent.round_trips_ns[WARM_UP:]) / 1e3

    def gb_per_s(self, transport: str) -> float:
        """Copy alone: out of the pool; through the host also into it, at the same time."""
        ends = (self.owner, self.reader) if transport == HOST else (self.reader,)
        count = COPIES[transport]
        answers = self._ask(dict.fromkeys(ends, CopySlots(count=count)))
        copied = [answer for answer in answers.values() if isinstance(answer, SlotsCopied)]
        began = min(one.began_ns for one in copied)
        return count * LARGE_BYTES / (max(one.ended_ns for one in copied) - began)

    def close(self) -> None:
        """Close the pool at both ends, if they live."""
        living = [end for end in (self.owner, self.reader) if not end.is_lost]
        self._ask(dict.fromkeys(living, CloseLink()))

    def _ask(self, questions: Mapping[EndProcess, Command]) -> dict[EndProcess, Answer]:
        answers = ask(questions, timeout_s=ANSWER_S, are_partners=True)
        roles = {self.owner: "owner", self.reader: "reader"}
        for end, answer in answers.items():
            if isinstance(answer, Failed):
                raise _LinkFailed(f"{roles[end]}: {answer.error}")
        return answers


def _places(owner: int, reader: int) -> tuple[_Place, _Place]:
    return _Place(owner, is_second=False), _Place(reader, is_second=owner == reader)


def _error(answer: Answer) -> str:
    assert isinstance(answer, Failed), f"not an answer to `OpenGpu`: {answer}"
    return answer.error
