"""`trace.json`: the slices of all workers in the trace event format, which ui.perfetto.dev opens.

The run is one process there and every worker a thread of it, so that all tracks are under each
other. Times are whole microseconds: Perfetto reads fractions as floating point numbers, and slices
that follow each other would overlap.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from runtime.trace import COPY_IN, COPY_OUT, FAILED, PART, RUN, STEP, WAIT, Traced

HEAD, END = b'{"displayTimeUnit":"ms","traceEvents":[\n', b"\n]}\n"
COPY_BYTES = 2**20
BLOCK = 10_000  # records that are text at once
SEPARATOR = b",\n"
BESIDE = {COPY_IN: 1 << 23, COPY_OUT: 1 << 24}  # tracks of their own; past every process id
Arrows = tuple[NDArray[np.int64], NDArray[np.int64]]  # that end and that start at a record; 0: none


@dataclass(frozen=True, slots=True)
class Track:
    """One worker, or the run itself."""

    name: str
    tid: int
    traced: Traced
    is_full: bool  # it may have had more to say


@dataclass(frozen=True, slots=True)
class Scene:
    """What all tracks share."""

    title: str
    pid: int
    began: float  # time.monotonic(), 0 in the trace
    ended: float  # likewise, of what has not ended
    arrows: str = "item"  # their category: arrows of two scenes in one file are no one way


def write_events(file: BinaryIO, scene: Scene, tracks: Sequence[Track]) -> None:
    """Write all tracks in their order, the run's own first."""
    file.write(HEAD)
    file.write(_metadata("process_name", scene.pid, scene.pid, name=scene.title))
    for number, (track, arrows) in enumerate(zip(tracks, _arrows(tracks), strict=True)):
        for events in _track(scene, number, track, arrows):
            file.write(events)
    file.write(END)


def join_events(file: BinaryIO, paths: Sequence[Path]) -> None:
    """Write what is in the files `paths`, each by `write_events`, as one.

    Raises:
        OSError: one cannot be read.
    """
    file.write(HEAD)
    for number, path in enumerate(paths):
        file.write(SEPARATOR if number else b"")
        with path.open("rb") as part:
            left = os.fstat(part.fileno()).st_size - len(HEAD) - len(END)
            part.seek(len(HEAD))
            while left > 0 and (block := part.read(min(left, COPY_BYTES))):
                file.write(block)
                left -= len(block)
    file.write(END)


def _arrows(tracks: Sequence[Track]) -> list[Arrows]:
    """Return the arrows of each track.

    An item's runs in order of time are its way; where that leads to another track is an arrow.
    """
    records = np.concatenate([track.traced[1] for track in tracks])
    borders = np.cumsum([0, *(len(track.traced[1]) for track in tracks)])
    number = np.repeat(np.arange(len(tracks)), np.diff(borders))
    runs = np.flatnonzero(np.isin(records["kind"], (RUN, FAILED)))
    runs = runs[np.lexsort([records[key][runs] for key in ("begin", "attempt", "item")])]
    sends, takes = runs[:-1], runs[1:]
    is_arrow = (
        (records["item"][sends] == records["item"][takes])
        & (records["attempt"][sends] == records["attempt"][takes])
        & (number[sends] != number[takes])
    )
    ending, starting = np.zeros((2, len(records)), np.int64)
    ending[takes[is_arrow]] = starting[sends[is_arrow]] = 1 + np.arange(np.sum(is_arrow))
    return [(ending[a:b], starting[a:b]) for a, b in pairwise(borders)]


def _track(scene: Scene, number: int, track: Track, arrows: Arrows) -> Iterator[bytes]:
    """Yield the track's events, block by block."""
    names, records = track.traced
    tids = {kind: track.tid + offset for kind, offset in BESIDE.items()}
    for name, tid in {track.name: track.tid, **_beside(track, tids)}.items():
        yield SEPARATOR + _metadata("thread_name", scene.pid, tid, name=name)
        yield SEPARATOR + _metadata("thread_sort_index", scene.pid, tid, sort_index=number)
    kinds = records["kind"]
    for tid, on_track in [
        (track.tid, ~np.isin(kinds, list(BESIDE))),
        *((tid, kinds == kind) for kind, tid in tids.items()),
    ]:
        chosen = np.flatnonzero(on_track)
        place = f'"pid":{scene.pid},"tid":{tid},"ts":%d'
        for first in range(0, len(chosen), BLOCK):
            some = chosen[first : first + BLOCK]
            yield _block(scene, place, names, records[some], *(ids[some] for ids in arrows))
    place = f'"pid":{scene.pid},"tid":{track.tid},"ts":%d'
    if track.is_full:
        name = f"tracing stopped: no room for more than {len(records)} slices"
        last = _microseconds(records["end"].max(keepdims=True) - scene.began)
        yield _fill(f'{{"ph":"i","s":"t","cat":"limit","name":"{name}",{place}}}', [last])


def _beside(track: Track, tids: dict[int, int]) -> dict[str, int]:
    """Return the names of the tracks beside this one that have anything to show."""
    kinds = set(np.unique(track.traced[1]["kind"]).tolist())
    shown = {COPY_IN: "copies in", COPY_OUT: "copies out"}
    return {f"{track.name}, {shown[kind]}": tids[kind] for kind in tids if kind in kinds}


def _block(
    scene: Scene,
    place: str,
    names: Sequence[str],
    records: NDArray[np.void],
    ending: NDArray[np.int64],
    starting: NDArray[np.int64],
) -> bytes:
    """Return events, not in order of time, but so that Perfetto takes them right.

    It binds an arrow to the last slice that began on the track. So runs come after waits, then
    their arrows, then parts of runs; and an arrow that leaves a run is put at the run's begin, as
    at its end a part would be the last. It is drawn from the end of the slice anyway.
    """
    is_open = records["end"] < records["begin"]
    ends = _microseconds(np.where(is_open, scene.ended, records["end"]) - scene.began)
    begins = _microseconds(records["begin"] - scene.began)
    columns = np.stack([begins, ends - begins, records["item"], records["attempt"]])
    order = (STEP, WAIT, RUN, FAILED, "arrows", PART, COPY_IN, COPY_OUT)
    texts = dict.fromkeys(order, b"")
    alike = (records["kind"].astype(np.int32) << 8 | records["name"]) << 2
    alike += 2 * is_open + (records["item"] >= 0)
    for group in np.unique(alike).tolist():  # several times faster than one by one
        kind, name = group >> 10, names[group >> 2 & 0xFF]
        template, num_columns = _template(kind, name, place, bool(group & 2), bool(group & 1))
        chosen = alike == group
        texts[kind] += _fill(template, columns[:num_columns, chosen])
    for phase, ids in (('"ph":"f","bp":"e"', ending), ('"ph":"s"', starting)):
        template = f'{{{phase},"cat":{_quoted(scene.arrows)},"name":"item",{place},"id":%d}}'
        texts["arrows"] += _fill(template, [begins[ids > 0], ids[ids > 0]])
    return b"".join(texts.values())


def _template(kind: int, name: str, place: str, is_open: bool, has_item: bool) -> tuple[str, int]:
    """Return the text of slices that are alike, and how many numbers are missing in it."""
    category = {STEP: "step", WAIT: "wait", PART: name, COPY_IN: name, COPY_OUT: name}.get(
        kind, "run"
    )
    shown = f"wait: {name}" if kind == WAIT else name
    is_run = kind in (RUN, FAILED)
    parts = ['"item":%d'] if has_item else []
    parts += ['"attempt":%d'] if is_run else []
    parts += ['"failed":true'] if kind == FAILED else []
    parts += ['"unfinished":true'] if is_open else []
    head = f'"ph":"X","cat":{_quoted(category)},"name":{_quoted(shown)}'
    return f'{{{head},{place},"dur":%d,"args":{{{",".join(parts)}}}}}', 2 + has_item + is_run


def _fill(template: str, columns: Sequence[NDArray[np.int64]] | NDArray[np.int64]) -> bytes:
    """Return the template once for each row of numbers."""
    numbers = np.stack(list(columns), axis=1)
    return (SEPARATOR + template.encode()) * len(numbers) % tuple(numbers.ravel().tolist())


def _quoted(name: str) -> str:
    return json.dumps(name).replace("%", "%%")


def _microseconds(seconds: NDArray[np.float64]) -> NDArray[np.int64]:
    return np.floor(seconds * 1e6).astype(np.int64)  # never before what came before


def _metadata(name: str, pid: int, tid: int, /, **args: str | int) -> bytes:
    return json.dumps({"ph": "M", "name": name, "pid": pid, "tid": tid, "args": args}).encode()
