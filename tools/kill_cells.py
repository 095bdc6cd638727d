"""The cells of the kill matrix: who is killed, how and when, and what has to come of it.

The clip has 16 frames: 15 items of one frame pair, in 8 segments. The moments, of a worker's stage:

    before the first item   it is prepared, and about to run item 0
    in the middle           item 7 is computed and written into its slots, and nobody knows yet
    at the last             it is about to run item 14
    while draining          it has run all its items and passed them on, and the sink is about to
                            write item 14; `write`: all is durable, and about to be joined;
                            an exception: item 14 is computed, and nobody knows yet
    after Ctrl-C            as in the middle, of a run that was interrupted when `read` was about to
                            read item 0, and now finishes what has begun
    once joined             `write` alone: the output has its name, and nobody knows yet

The supervisor is killed at the same moments: item 0 in `read`, 7 in `decode`, 14 in `write`, then
before `write` joins, and after. Loading is `open` for `read` and `write`, which have no weights.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from tools.kill_order import SUPERVISOR, Order

NUM_FRAMES, NUM_ITEMS, MIDDLE = 16, 15, 7
LAST = NUM_ITEMS - 1
WORKERS = ("read", "encode", "denoise", "decode", "write")
EDEN = WORKERS[1:-1]
MOMENTS = ("first", "middle", "last", "draining")
SIGNALS = ("SIGKILL", "SIGSEGV", "SIGSTOP", "SIGTERM", "exit")
RAISES = {"load-start": 1, "load-restart": 1, "load-restart-always": 99}  # how often loading fails
MOST_RECOVERY_S = 2.0

# Cells whose names match are run by bin/test: every way, every moment, every worker, in a minute.
NAMED_SETS: dict[str, tuple[str, ...]] = {
    "short": (
        "undisturbed.wrapped",
        "read.SIGKILL.middle",
        "read.run.middle",
        "read.load-start.first",
        "write.exit.first",
        "write.SIGSTOP.middle",
        "write.SIGSEGV.last",
        "write.SIGKILL.draining",
        "write.run.last",
        "write.load-restart.middle",
        "decode.SIGTERM.draining",
        "supervisor.SIGKILL.middle",
    )
}


@dataclass(frozen=True, slots=True)
class Expected:
    """What a cell has to come to."""

    codes: tuple[int, ...]  # exit codes: of the run, and of `--resume` after it
    failed_item: int | None = None  # this one and no other is left out
    nothing: bool = False  # it ends before any item, and there is no output
    recovers: bool = False  # the victim is restarted; never in more than MOST_RECOVERY_S
    differs: bool = False  # bytes must not be equal: the cell shows that the comparison can tell


@dataclass(frozen=True, slots=True)
class Cell:
    """One run of the command line, and of `--resume` where one follows."""

    victim: str  # "read", ..., "supervisor"; "undisturbed", "control"
    way: str
    moment: str = ""

    @property
    def name(self) -> str:
        """Return "denoise.SIGKILL.middle"."""
        return ".".join(filter(None, (self.victim, self.way, self.moment)))

    @property
    def is_plain(self) -> bool:
        """Whether the stages are those of everybody."""
        return self == PLAIN

    @property
    def order(self) -> Order:
        """Return what the stages are told."""
        raises = RAISES.get(self.way, 0)
        victim, way = self.victim, "SIGKILL" if raises else self.way
        if victim == "undisturbed":
            victim = way = ""
        if victim == "control":
            victim, way = "denoise", "SIGKILL"
        if self.way == "load-start":
            way = ""
        return Order(
            victim=victim,
            way=way,
            moment=self.moment if way else "",
            middle=MIDDLE,
            last=LAST,
            load_raises=raises,
            load_raises_at="start" if self.way == "load-start" else "restart",
        )

    @property
    def groups(self) -> list[list[str]]:
        """Return who shares a worker: all of EDEN but the victim, so as to import torch less."""
        group = [name for name in EDEN if name != self.order.victim]
        return [] if self.victim == "undisturbed" else [group]

    @property
    def expected(self) -> Expected:
        """Return what has to come of it."""
        if self.moment == "interrupted" and self.victim != SUPERVISOR:
            return Expected((130, 0), recovers=True)
        if self.victim == SUPERVISOR:
            codes = {"SIGKILL": (-9, 0), "SIGSEGV": (-11, 0), "SIGTERM": (143, 0), "SIGSTOP": (0,)}
            return Expected(codes[self.way])
        if self.victim == "undisturbed":
            return Expected((0,))
        if self.way == "load-start":
            return Expected((1,), nothing=True)
        if self.way == "load-restart-always" or (self.way, self.victim) == ("run", "write"):
            return Expected((1, 0))  # a place in the output that cannot be closed ends the run
        if self.way == "run":
            return Expected((1,), failed_item={"first": 0, "middle": MIDDLE}.get(self.moment, LAST))
        # Who has run all its items may not be needed again.
        recovers = self.moment != "draining" or self.victim == "write"
        return Expected((0,), recovers=recovers, differs=self.victim == "control")


PLAIN = Cell("undisturbed", "plain")


def all_cells() -> list[Cell]:
    """Return every cell, the undisturbed ones first."""
    return [PLAIN, Cell("undisturbed", "wrapped"), Cell("control", "attempt", "middle"), *_kills()]


def _kills() -> Iterator[Cell]:
    for worker in WORKERS:
        for way in (*SIGNALS, "run", "load-restart"):
            yield from (Cell(worker, way, moment) for moment in MOMENTS)
        yield Cell(worker, "load-start", "first")
        yield Cell(worker, "load-restart-always", "middle")
        yield from (Cell(worker, way, "interrupted") for way in ("SIGKILL", "SIGSTOP"))
    yield Cell("write", "SIGKILL", "joined")
    for way in ("SIGKILL", "SIGSEGV", "SIGSTOP", "SIGTERM"):
        yield from (Cell(SUPERVISOR, way, moment) for moment in MOMENTS)
    yield from (Cell(SUPERVISOR, way, "interrupted") for way in ("SIGKILL", "SIGTERM"))
    yield Cell(SUPERVISOR, "SIGKILL", "joined")


def chosen(patterns: Sequence[str]) -> list[Cell]:
    """Return the cells that match any pattern, or all; a pattern is a glob, or a named set.

    Raises:
        LookupError: a pattern matches none.
    """
    cells = all_cells()
    if not patterns:
        return cells
    found: set[str] = set()
    for pattern in patterns:
        globs = NAMED_SETS.get(pattern, (pattern,))
        names = {cell.name for cell in cells for glob in globs if fnmatchcase(cell.name, glob)}
        if not names:
            raise LookupError(f"{pattern}: no such cell; --list has them")
        found |= names
    return [cell for cell in cells if cell.name in found]
