"""How long kernels ran: of one edit, and of the transformer's passes in it, from a worker's trace.

A time in which several kernels ran counts once: see `tools/bench_kernels.py`.
"""

from __future__ import annotations

import bisect
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from runtime.errors import RunpipeError
from tools.bench_kernels import union_us

MARK = "spin_kernel"  # before and after each pass, on a GPU
PASS = "pass of the transformer"  # on a CPU: a range around it


class Traced(msgspec.Struct, frozen=True, kw_only=True):
    """What a trace is of."""

    kind: str  # category of the events that count: "kernel", or "cpu_op" on a CPU
    num_items: int

    def write(self, path: Path) -> None:
        """Write it beside the trace."""
        path.write_bytes(msgspec.json.encode(self))


class _Event(msgspec.Struct, frozen=True):
    name: str = ""
    cat: str = ""
    ts: float = 0.0  # us
    dur: float = 0.0

    @property
    def end(self) -> float:
        return self.ts + self.dur


class _File(msgspec.Struct, frozen=True):
    events: list[_Event] = msgspec.field(name="traceEvents")


@dataclass(frozen=True, slots=True)
class Kernels:
    """What a trace says, in seconds of one item."""

    kernels_s: float  # in which at least one kernel ran
    passes_s: float  # likewise, of the transformer's passes
    num_passes: float
    span_s: float  # from the first kernel's start to the last one's end
    num_kernels: float


def trace_files(work_dir: Path, stage: str) -> Path:
    """Return where this process says what its trace is of; the trace is beside it."""
    return work_dir / f"traced-{stage}-{os.getpid()}.json"


def read_kernels(work_dir: Path, stage: str) -> list[Kernels]:
    """Return what the workers of a stage have traced.

    Raises:
        RunpipeError: nothing, or there is nothing in it.
    """
    paths = [p for p in work_dir.glob(f"traced-{stage}-*.json") if ".trace" not in p.name]
    if not paths:
        raise RunpipeError(f"{work_dir}: no worker of {stage} has written a trace")
    return [_kernels(path) for path in sorted(paths)]


def _kernels(path: Path) -> Kernels:
    traced = msgspec.json.decode(path.read_bytes(), type=Traced)
    trace = path.with_suffix(".trace.json")
    events = msgspec.json.decode(trace.read_bytes(), type=_File).events
    return kernels_of(events, traced, str(trace))


def kernels_of(events: Sequence[_Event], traced: Traced, name: str = "") -> Kernels:
    """Return what the events of a trace come to."""
    kernels = sorted((e for e in events if e.cat == traced.kind), key=lambda event: event.ts)
    passes = _passes(events, kernels)
    kernels = [event for event in kernels if MARK not in event.name]
    if not kernels:
        raise RunpipeError(f"{name}: no event of the kind {traced.kind!r} is in it")
    each = 1e6 * traced.num_items
    starts = [start for start, _end in passes]
    inside = [
        event
        for event in kernels
        if (at := bisect.bisect_right(starts, event.ts) - 1) >= 0 and event.ts < passes[at][1]
    ]
    last = max(event.end for event in kernels)
    return Kernels(
        kernels_s=union_us((event.ts, event.end) for event in kernels) / each,
        passes_s=union_us((event.ts, event.end) for event in inside) / each,
        num_passes=len(passes) / traced.num_items,
        span_s=(last - kernels[0].ts) / each,
        num_kernels=len(kernels) / traced.num_items,
    )


def _passes(events: Sequence[_Event], kernels: Sequence[_Event]) -> list[tuple[float, float]]:
    """Return when each pass of the transformer began and ended."""
    ranges = [e for e in events if e.name == PASS and e.cat == "user_annotation"]
    if ranges:
        return sorted((event.ts, event.end) for event in ranges)
    marks = [event for event in kernels if MARK in event.name]
    return [(one.end, other.ts) for one, other in zip(marks[::2], marks[1::2], strict=True)]
