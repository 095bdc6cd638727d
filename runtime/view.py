"""What a run looks like while it goes on: a row per worker, and the whole in one line.

Pure but for `RunView`; rates are differences between snapshots. `view_rich.py` lays it out.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from ipc.messages import Heartbeat
from runtime.cli_table import seconds_text
from runtime.live import JOINING, RUNNING, STOPPING, Shown, Snapshot, WorkerNow

MEAN_S = 10.0  # over which rates are means
LONGEST_S = 60.0  # at most, where little happens in that
ENOUGH = 4  # that must have happened for a rate not to jump
LONG_ITEM_S = 2.0  # from then on it is said how long an item has run

_NONE = "-"


@dataclass(frozen=True, slots=True)
class Column:
    """One column of the table, top to bottom."""

    head: str
    cells: tuple[str, ...]
    rank: int  # where there is no room the highest goes first; 0 stays
    is_number: bool = True

    @property
    def width(self) -> int:
        """Of the widest cell."""
        return max(map(len, (self.head, *self.cells)))


@dataclass(frozen=True, slots=True)
class Part:
    """A piece of the line that tells of the whole."""

    text: str
    rank: int
    is_bad: bool = False


class RunView:
    """A run that is looked at again and again, as the terminal wants it."""

    def __init__(self, live: Shown) -> None:
        self._live = live
        self._history: deque[Snapshot] = deque()

    def look(self) -> None:
        """Take notice of how the run stands now; rates are of one phase only."""
        snapshot, history = self._live.snapshot(), self._history
        if history and history[-1].phase != snapshot.phase:
            history.clear()
        history.append(snapshot)
        while snapshot.at - history[0].at > LONGEST_S:
            history.popleft()

    def picture(self, *, width: int, height: int) -> list[str]:
        """Return the table and the line below it, as they fit."""
        from runtime.view_rich import drawn  # only who draws needs it

        return drawn(self._history, width=width, height=height)

    def line(self) -> str:
        """Return the run in one line."""
        return plain_line(self._history)


def plain_line(history: Sequence[Snapshot]) -> str:
    """Return "24/59 frame pairs, 3.4 a second, 10 s left; encode/0 is 99 % busy"."""
    line = ", ".join(part.text for part in total(history))
    if history[-1].phase != RUNNING:
        return line
    shares = {worker.name: busy_share(history, worker.name) for worker in history[-1].workers}
    known = {name: share for name, share in shares.items() if share is not None}
    if not known:
        return line
    busiest, idlest = max(known, key=known.__getitem__), min(known, key=known.__getitem__)
    line += f"; {busiest} is {_percent(known[busiest])} busy"
    if busiest != idlest:
        line += f", {idlest} {_percent(known[idlest])}"
        line += next(f": {doing(history[-1], w)}" for w in history[-1].workers if w.name == idlest)
    return line


def total(history: Sequence[Snapshot]) -> list[Part]:
    """Return the pieces of the line about the whole, in order."""
    now = history[-1]
    counted = [one for one in now.sections or (now,) if one.num_units]
    parts = [Part(f"{one.units_done}/{one.num_units} {one.unit}", 0) for one in counted]
    if now.phase != RUNNING:
        busy = ", ".join(w.name for w in now.workers if w.beat and doing(now, w) == now.phase)
        is_told = busy and len(busy.split(", ")) < len(now.workers)
        parts.append(Part(f"{now.phase}: {busy}" if is_told else now.phase, 0))
    elif a_second := rate([(one.at, one.units_done) for one in history], enough=ENOUGH):
        parts.append(Part(f"{_rate(a_second)} a second", 2))
        parts.append(Part(f"{_seconds((now.num_units - now.units_done) / a_second)} left", 1))
    parts.append(Part(f"{_seconds(now.elapsed_s)} so far", 3))
    if now.items_failed:
        items = "item" if now.items_failed == 1 else "items"
        parts.append(Part(f"{now.items_failed} {items} failed", 0, is_bad=True))
    return parts


def columns(history: Sequence[Snapshot]) -> list[Column]:
    """Return what there is to say of each worker, in the order of a row."""
    now = history[-1]
    workers = now.workers

    def cells(text: Callable[[WorkerNow], str]) -> tuple[str, ...]:
        return tuple(map(text, workers))

    def counted(text: Callable[[WorkerNow], str]) -> tuple[str, ...]:
        has_begun = now.phase in (RUNNING, JOINING, STOPPING) and now.num_units
        return cells(lambda worker: text(worker) if worker.beat and has_begun else _NONE)

    def of_late(figure: Callable[[Sequence[Snapshot], str], str]) -> tuple[str, ...]:
        is_running = now.phase == RUNNING
        return cells(lambda worker: figure(history, worker.name) if is_running else _NONE)

    table = [
        Column("worker", cells(lambda worker: worker.name), 0, is_number=False),
        Column("device", cells(lambda worker: worker.device), 5, is_number=False),
        Column("items", counted(lambda worker: str(_beat(worker).usage.items)), 2),
        Column("in flight", counted(lambda worker: str(_beat(worker).num_here)), 4),
        Column("items/s", of_late(lambda *of: _rate(items_rate(*of))), 3),
        Column("busy", of_late(lambda *of: _percent(busy_share(*of))), 1),
        Column("GPU", cells(lambda worker: _percent(worker.gpu_use)), 6),
        Column("now", cells(lambda worker: doing(now, worker)), 0, is_number=False),
    ]
    has_gpu = any(worker.gpu_use is not None for worker in workers)
    return [column for column in table if has_gpu or column.head != "GPU"]


def doing(now: Snapshot, worker: WorkerNow) -> str:
    """Return "item 7, 40 %", "waits for encode", "loading weights", "ready"."""
    beat = worker.beat
    if now.phase == STOPPING:
        return ""
    if beat is None:
        return "starting"
    if now.phase == RUNNING:
        return ", ".join(_running(worker)) or (beat.waits_for and f"waits for {beat.waits_for}")
    if not beat.waits_for:
        return now.phase
    return "done" if now.phase == JOINING else "ready"


def _running(worker: WorkerNow) -> Iterator[str]:
    beat = _beat(worker)
    if beat.item >= 0:
        yield f"item {beat.item}"
        if beat.progress:
            yield _percent(beat.progress)
        if beat.running_s >= LONG_ITEM_S:
            yield _seconds(beat.running_s)


def busy_share(history: Sequence[Snapshot], name: str) -> float | None:
    """Return the share of the last time in which a worker's stages ran, 0 to 1."""
    share = rate(list(_of(history, name, lambda worker: _beat(worker).usage.busy_s)))
    return None if share is None else min(share, 1.0)  # a heartbeat is half a second old at most


def items_rate(history: Sequence[Snapshot], name: str) -> float | None:
    """Return how many items a second a worker has done of late."""
    counts = list(_of(history, name, lambda worker: _beat(worker).usage.items))
    return rate(counts, enough=ENOUGH)


def _of(
    history: Sequence[Snapshot], name: str, count: Callable[[WorkerNow], float]
) -> Iterator[tuple[float, float]]:
    for snapshot in history:
        for worker in snapshot.workers:
            if worker.name == name and worker.beat is not None:
                yield snapshot.at, count(worker)


def rate(counts: Sequence[tuple[float, float]], *, enough: float = 0.0) -> float | None:
    """Return how much a second a count has grown over the last `MEAN_S`.

    Args:
        counts: times and counts, oldest first.
        enough: growth for which to look back further, if it takes that.

    Returns:
        None if that is not known yet.
    """
    if not counts:
        return None
    last_at, last = counts[-1]
    first_at, first = last_at, last
    for at, count in reversed(counts):
        if count > first:
            break  # it began anew: another job
        first_at, first = at, count
        if last_at - at >= MEAN_S and last - count >= enough:
            break
    return (last - first) / (last_at - first_at) if last_at > first_at else None


def fitting(parts: Iterable[Part], width: int) -> list[Part]:
    """Return the pieces that fit into one line; rank 0 always does."""
    kept = list(parts)
    while len(", ".join(part.text for part in kept)) > width:
        least = max(kept, key=lambda part: part.rank)
        if least.rank == 0:
            break
        kept.remove(least)
    return kept


def _beat(worker: WorkerNow) -> Heartbeat:
    assert worker.beat is not None, "looked up for those that have one only"
    return worker.beat


def _percent(share: float | None) -> str:
    return _NONE if share is None else f"{100 * share:.0f} %"


def _rate(a_second: float | None) -> str:
    if a_second is None:
        return _NONE
    return f"{a_second:.{0 if a_second >= 100 else 1 if a_second >= 1 else 2}f}"


def _seconds(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 100 else seconds_text(seconds)
