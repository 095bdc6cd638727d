"""What each worker did and when, drawn from `trace.json`; GPUs first. Knows nothing of scores.

The file is in the trace event format: "X" events with `ts` and `dur` in microseconds, and the
names of tracks in "M" events. Other events are left out, and slices too short to be seen are drawn
as one.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import ijson

from stages.base import UserError
from stages.benchmark.pages_text import Markup, said, seconds

WIDTH = 1000
_LEFT, _ROW, _BAR, _TOP = 170, 24, 16, 8
_COLOURS = 8  # that the page has for stages
_LEAST = 0.8  # of a unit of width: shorter gaps and slices run together
_MAX_TRACKS = 200

_DEVICE = re.compile(r"^(?P<worker>.*?) (?P<device>cpu|cuda:\d+)(?:, restart \d+)?$")


@dataclass(slots=True)
class Slice:
    """Something that lasted, in microseconds; perhaps several, run together."""

    name: str
    begin: float
    end: float
    count: int = 1
    failed: bool = False


@dataclass(slots=True)
class Lane:
    """One worker; all of its incarnations share it."""

    worker: str
    device: str  # "" = none: the run itself
    setup: list[Slice] = field(default_factory=list)
    runs: list[Slice] = field(default_factory=list)

    @property
    def busy_us(self) -> float:
        """How long it ran items."""
        return sum(each.end - each.begin for each in self.runs)


def read_lanes(path: Path) -> list[Lane]:
    """Return the workers of a trace, those on GPUs first.

    Raises:
        UserError: it cannot be read, or is no trace.
    """
    names: dict[tuple[int, int], str] = {}
    tracks: dict[tuple[int, int], Lane] = {}
    try:
        with path.open("rb") as file:
            for event in ijson.items(file, "traceEvents.item", use_float=True):
                place = (event.get("pid", 0), event.get("tid", 0))
                if event.get("ph") == "M" and event.get("name") == "thread_name":
                    names[place] = str(event["args"]["name"])
                elif event.get("ph") == "X":
                    _add(tracks.setdefault(place, Lane("?", "")), event)
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from error
    except (ijson.JSONError, AttributeError, KeyError, TypeError, ValueError) as error:
        raise UserError(f"{path}: is no trace: {error}") from error
    lanes: dict[tuple[str, str], Lane] = {}
    for place, track in tracks.items():
        name = names.get(place, "?")
        known = _DEVICE.match(name)
        worker, device = (known["worker"], known["device"]) if known else (name, "")
        lane = lanes.setdefault((device, worker), Lane(worker, device))
        lane.setup += track.setup
        lane.runs += track.runs
    return sorted(lanes.values(), key=_order)


def _order(lane: Lane) -> tuple[int, int, str]:
    kind, _, index = lane.device.partition(":")
    return (("cuda", "cpu", "").index(kind), int(index or 0), lane.worker)


def _add(lane: Lane, event: dict[str, Any]) -> None:
    """Take up a slice of a run or of a step; waits are the gaps, and parts lie in their runs."""
    if event.get("cat") not in ("run", "step"):
        return
    begin = float(event["ts"])
    made = Slice(str(event.get("name", "?")), begin, begin + float(event.get("dur", 0)))
    args = event.get("args") or {}
    made.failed = bool(args.get("failed") or args.get("unfinished"))
    (lane.runs if event["cat"] == "run" else lane.setup).append(made)


def timeline(lanes: Sequence[Lane]) -> Markup:
    """Return the drawing, and below it what the colours mean."""
    shown = [lane for lane in lanes if lane.runs or lane.setup][:_MAX_TRACKS]
    end = max((each.end for lane in shown for each in (*lane.setup, *lane.runs)), default=0.0)
    if not end:
        return Markup('<p class="note">The trace has nothing to draw.</p>')
    stages = sorted({each.name for lane in shown for each in lane.runs})
    colour = {name: f"stage{at % _COLOURS}" for at, name in enumerate(stages)}
    height = _TOP + _ROW * len(shown) + 28
    rows = [_lane(lane, _TOP + at * _ROW, end, colour) for at, lane in enumerate(shown)]
    label = f"Timeline of {len(shown)} workers over {seconds(end / 1e6)}"
    legend = "".join(
        f'<li><span class="key {colour[name]}"></span>{said(name)}</li>' for name in stages
    )
    return Markup(
        f'<div class="scroll"><svg class="chart timeline" id="timeline" '
        f'viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{label}"><title>{label}</title>'
        + "".join(rows)
        + _axis(end, _TOP + _ROW * len(shown))
        + f'</svg></div><ul class="legend">{legend}'
        '<li><span class="key setup"></span>start, load, prepare</li>'
        '<li><span class="key broken"></span>failed or unfinished</li></ul>'
    )


def _lane(lane: Lane, top: float, end: float, colour: dict[str, str]) -> str:
    name = " ".join(filter(None, (lane.device, lane.worker)))
    share = f", {lane.busy_us / end:.0%} of the time" if lane.runs else ""
    parts = [
        f'<g><rect class="lane" x="{_LEFT}" y="{top}" width="{WIDTH - _LEFT}" height="{_BAR}"/>'
        f'<text x="{_LEFT - 8}" y="{top + 12}" text-anchor="end">{said(name[:26])}'
        f"<title>{said(name)}{share}</title></text>"
    ]
    parts += [_bar(each, "setup", top, end) for each in _joined(lane.setup, end)]
    parts += [
        _bar(each, "broken" if each.failed else colour[each.name], top, end)
        for each in _joined(lane.runs, end)
    ]
    return "".join([*parts, "</g>"])


def _joined(slices: Sequence[Slice], end: float) -> list[Slice]:
    """Return slices in order of time, with those run together that nobody could tell apart."""
    least = _LEAST * end / (WIDTH - _LEFT)
    made: list[Slice] = []
    for each in sorted(slices, key=lambda one: one.begin):
        last = made[-1] if made else None
        if last and last.name == each.name and each.begin - last.end < least and not each.failed:
            last.end = max(last.end, each.end)
            last.count += 1
        else:
            made.append(Slice(each.name, each.begin, each.end, 1, each.failed))
    return made


def _bar(each: Slice, kind: str, top: float, end: float) -> str:
    scale = (WIDTH - _LEFT) / end
    times = f" x {each.count}" if each.count > 1 else ""
    told = f"{each.name}{times}: {each.begin / 1e6:.2f} s to {each.end / 1e6:.2f} s"
    return (
        f'<rect class="{kind}" x="{_LEFT + each.begin * scale:.2f}" y="{top}" '
        f'width="{max((each.end - each.begin) * scale, _LEAST):.2f}" height="{_BAR}">'
        f"<title>{said(told)}</title></rect>"
    )


def _axis(end: float, top: float) -> str:
    parts = []
    for mark in range(6):
        x = _LEFT + (WIDTH - _LEFT) * mark / 5
        anchor, time = "end" if mark == 5 else "middle", seconds(end * mark / 5e6)
        parts.append(
            f'<line class="grid" x1="{x}" x2="{x}" y1="{_TOP}" y2="{top}"/>'
            f'<text x="{x}" y="{top + 16}" text-anchor="{anchor}">{time}</text>'
        )
    return "".join(parts)
