"""Judges a cell of the kill matrix by what it left: journal, report, frames, files, log."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
import msgspec

from runtime.errors import JournalError
from runtime.journal import Journal
from runtime.report import Report, load_report
from tools.kill_cells import LAST, MOST_RECOVERY_S, NUM_ITEMS, Cell
from tools.kill_run import Place, Ran

_TOOK = re.compile(r"restarted worker=.*\btook_s=([\d.]+)")


class Frames(msgspec.Struct, frozen=True):
    """A video as it is shown."""

    sha256: str  # of the file
    shown: dict[str, str]  # when -> hash of the picture; "3/16" s
    num: int  # of frames, more than `shown` has if two have one time


class Reference(msgspec.Struct, frozen=True):
    """What an undisturbed run of the plain stages leaves."""

    frames: Frames
    files: frozenset[str]


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """One line of the results."""

    cell: str
    sources: str  # digest of the code that was run
    problems: tuple[str, ...]  # what is not as expected; () = passed
    lost: int | None = None  # items; None: there was nothing to lose
    twice: int | None = None
    equal: bool | None = None  # None: there is no output, as expected
    recovery_s: float | None = None  # from detection until the worker is ready, load not counted
    left: tuple[str, ...] = ()
    codes: tuple[int | None, ...] = ()
    replayed: int = 0
    wall_s: float = 0.0
    at: str = ""  # "2026-11-22T10:00:00Z"
    reference: Reference | None = None  # of the undisturbed run


def frames_of(path: Path) -> Frames:
    """Return what a video shows."""
    shown, num = {}, 0
    with av.open(str(path)) as container:
        for frame in container.decode(video=0):
            digest = hashlib.sha256(b"".join(bytes(plane) for plane in frame.planes))
            assert frame.pts is not None, path
            assert frame.time_base is not None, path
            shown[str(Fraction(frame.pts * frame.time_base))] = digest.hexdigest()
            num += 1
    return Frames(hashlib.sha256(path.read_bytes()).hexdigest(), shown, num)


def judge(cell: Cell, place: Place, ran: Ran, reference: Reference | None, sources: str) -> Result:
    """Hold what the cell has left against what is expected.

    Args:
        cell: that was run.
        place: where.
        ran: how it went.
        reference: None: this is the run that the others are held against.
        sources: digest of the code.
    """
    report = _report(place)
    frames = frames_of(place.output) if place.output.exists() else None
    if reference is None and frames is not None:
        reference = Reference(frames, place.files())
    if reference is None:
        return Result(cell=cell.name, sources=sources, problems=(f"no output: {ran.stderr}",))
    left = [*ran.left, *_files_left(cell, place, reference)]
    lost, twice = (None, None) if cell.expected.nothing else _counts(place, frames)
    equal = None if cell.expected.nothing else _is_equal(cell, frames, reference)
    result = Result(
        cell=cell.name,
        sources=sources,
        problems=(),
        lost=lost,
        twice=twice,
        equal=equal,
        recovery_s=_recovery_s(place),
        left=tuple(left),
        codes=ran.codes,
        replayed=report.items.replayed if report else 0,
        wall_s=round(ran.wall_s, 2),
        reference=reference if cell.is_plain else None,
    )
    problems = [*_problems(cell, ran, result), *_failures(cell, report)]
    if problems and ran.stderr:
        problems.append(f"stderr: {ran.stderr}")
    return msgspec.structs.replace(result, problems=tuple(problems))


def _problems(cell: Cell, ran: Ran, result: Result) -> Iterator[str]:
    expected = cell.expected
    if cell.order.way and not ran.has_struck:
        yield "what was ordered has not happened"
    if ran.codes != expected.codes:
        yield f"exit codes {list(ran.codes)}, expected {list(expected.codes)}"
    if result.lost:
        yield f"{result.lost} items lost"
    if result.twice:
        yield f"{result.twice} items twice"
    if result.equal is expected.differs:
        yield "bytes are equal" if expected.differs else "bytes differ"
    if result.left:
        yield f"left behind: {', '.join(result.left)}"
    if expected.recovers and result.recovery_s is None:
        yield "no recovery in the log"
    if (result.recovery_s or 0) > MOST_RECOVERY_S:
        yield f"recovered in {result.recovery_s} s, expected {MOST_RECOVERY_S} at most"


def _failures(cell: Cell, report: Report | None) -> Iterator[str]:
    """Say what the report should say otherwise."""
    if cell.expected.nothing:
        return
    if report is None:
        yield "no report"
        return
    failed = [] if cell.expected.failed_item is None else [cell.expected.failed_item]
    told = [failure.item for failure in report.failures]
    if told != failed or report.items.failed != len(failed):
        yield f"failed items {told}, expected {failed}"
    if report.items.done != NUM_ITEMS - len(failed):
        yield f"{report.items.done} items done, expected {NUM_ITEMS - len(failed)}"


def _report(place: Place) -> Report | None:
    path = place.run_dir / "report.json"
    return load_report(path) if path.exists() else None


def _counts(place: Place, frames: Frames | None) -> tuple[int, int]:
    """Return how many items are missing, and how many were made durable more than once."""
    written = Counter[int]()
    try:
        with Journal.open(place.run_dir / "journal.sqlite") as journal:
            for row in journal.rows():
                written.update(row.items)
    except JournalError:
        return NUM_ITEMS, 0
    lost = NUM_ITEMS - len(written)
    twice = sum(count - 1 for count in written.values())
    return lost, twice + (frames.num - len(frames.shown) if frames else 0)


def _is_equal(cell: Cell, frames: Frames | None, reference: Reference) -> bool:
    """Whether the output is that of the undisturbed run, but for what one failed item leaves out.

    A failed pair leaves out the frame between; one that could not be read also its first frame, and
    at the end of the video its last.
    """
    if frames is None:
        return False
    item = cell.expected.failed_item
    if item is None:
        return frames == reference.frames
    missing = {2 * item + 1}
    if cell.victim == "read":
        missing |= {2 * item, 2 * item + 2} if item == LAST else {2 * item}
    times = sorted(reference.frames.shown, key=Fraction)
    wanted = {
        time: reference.frames.shown[time]
        for place, time in enumerate(times)
        if place not in missing
    }
    return frames.shown == wanted


def _files_left(cell: Cell, place: Place, reference: Reference) -> Iterator[str]:
    """Yield the files that an undisturbed run does not leave."""
    for name in sorted(place.files() - reference.files):
        yield f"file {name}"
    if cell.expected.nothing and place.output.exists():
        yield f"file {place.output.name}"


def _recovery_s(place: Place) -> float | None:
    """Return the longest recovery that the log tells of; None if it tells of none."""
    path = place.run_dir / "logs" / "supervisor.log"
    found = _TOOK.findall(path.read_text()) if path.exists() else []
    return max(map(float, found), default=None)
