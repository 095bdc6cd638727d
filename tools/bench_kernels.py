"""How long a GPU was busy: the union of its kernels' intervals, from the traces of a run."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np

from runtime.errors import RunpipeError

NAMED = 15  # kernels in the report, those that take longest


class Part(msgspec.Struct, frozen=True, kw_only=True):
    """A part of a run that one worker has traced."""

    kind: str  # category of the events that count: "kernel", or "cpu_op" on a CPU
    pid: int
    gpu: str  # UUID; "" for a CPU
    num_items: int
    num_pairs: int
    loaded_bytes: int  # of the GPU, in tensors, when all stages of the worker had loaded


class _Event(msgspec.Struct, frozen=True):
    name: str = ""
    cat: str = ""
    ts: float = 0.0  # us
    dur: float = 0.0


class _Trace(msgspec.Struct, frozen=True):
    events: list[_Event] = msgspec.field(name="traceEvents")


class Busy(msgspec.Struct, frozen=True, kw_only=True):
    """What one worker's trace says, in ms a pair."""

    part: Part
    span_ms: float  # from the first kernel's start to the last one's end
    kernels_ms: float  # in which at least one kernel ran
    copies_ms: float  # likewise, of copies and fills on the GPU, which may overlap
    num_kernels: float  # a pair
    longest: dict[str, float]  # kernels by name: ms a pair, all of that name


@dataclass(frozen=True, slots=True)
class GpuBusy:
    """What one GPU did, in ms for a pair of the whole run, of which it may see only some."""

    gpu: str
    kernels_ms: float
    span_ms: float


def write_part(work_dir: Path, part: Part, export: Callable[[str], object]) -> None:
    """Write this worker's trace and what it is of, under names of this process.

    Args:
        work_dir: of the run.
        part: what was traced.
        export: writes a chrome trace to the path that it is given.
    """
    path = work_dir / f"kernels-{part.pid}.json"
    export(str(path.with_suffix(".trace.json")))
    path.write_bytes(msgspec.json.encode(part))


def read_parts(work_dir: Path) -> list[Busy]:
    """Return what all workers have traced in a run.

    Raises:
        RunpipeError: nobody finished a trace, or there is nothing in one.
    """
    paths = [p for p in work_dir.glob("kernels-*.json") if not p.name.endswith(".trace.json")]
    if not paths:
        raise RunpipeError(f"{work_dir}: no worker has finished a trace; more --pairs are needed")
    return [_busy(path) for path in sorted(paths)]


def _busy(path: Path) -> Busy:
    part = msgspec.json.decode(path.read_bytes(), type=Part)
    trace = path.with_suffix(".trace.json")
    events = msgspec.json.decode(trace.read_bytes(), type=_Trace).events
    kernels = [event for event in events if event.cat == part.kind]
    if not kernels:
        raise RunpipeError(f"{trace}: no event of the kind {part.kind!r} is in it")
    copies = [event for event in events if event.cat in ("gpu_memcpy", "gpu_memset")]
    pairs, by_name = part.num_pairs, defaultdict[str, float](float)
    for event in kernels:
        by_name[event.name] += event.dur / 1e3 / pairs
    longest = sorted(by_name.items(), key=lambda entry: -entry[1])[:NAMED]
    last = max(event.ts + event.dur for event in kernels)
    return Busy(
        part=part,
        span_ms=(last - min(event.ts for event in kernels)) / 1e3 / pairs,
        kernels_ms=union_us((event.ts, event.ts + event.dur) for event in kernels) / 1e3 / pairs,
        copies_ms=union_us((event.ts, event.ts + event.dur) for event in copies) / 1e3 / pairs,
        num_kernels=len(kernels) / pairs,
        longest=dict(longest),
    )


def union_us(intervals: Iterable[tuple[float, float]]) -> float:
    """Return for how long at least one of the intervals (start, end) lasts."""
    rows = np.array(sorted(intervals), np.float64).reshape(-1, 2)
    if not rows.size:
        return 0.0
    reached = np.maximum.accumulate(rows[:, 1])
    before = np.concatenate([rows[:1, 0], reached[:-1]])  # how far the earlier ones reach
    return float(np.maximum(reached - np.maximum(rows[:, 0], before), 0).sum())


def busiest(parts: Sequence[Busy], shares: Mapping[int, float]) -> GpuBusy:
    """Return the GPU that kernels take the longest time of, for a pair of the run.

    Args:
        parts: of all workers; those of one GPU take turns there, so their kernels are added.
        shares: by process: which part of the run's pairs that worker has done.
    """
    kernels_ms, span_ms = defaultdict[str, float](float), defaultdict[str, float](float)
    for one in parts:
        share = shares[one.part.pid]
        kernels_ms[one.part.gpu] += one.kernels_ms * share
        span_ms[one.part.gpu] = max(span_ms[one.part.gpu], one.span_ms * share)
    gpu = max(kernels_ms, key=lambda uuid: kernels_ms[uuid])
    return GpuBusy(gpu=gpu, kernels_ms=kernels_ms[gpu], span_ms=span_ms[gpu])
