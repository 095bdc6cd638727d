"""Which sections of a run have their models in memory at the same time: all, or some at a time."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from runtime.cli_table import nbytes_text
from runtime.errors import PlanError
from runtime.plan_memory import DeviceMemory
from runtime.setup import OpenedJob

logger = logging.getLogger(__name__)

Residency = Literal["auto", "resident", "phased"]
Needs = Mapping[str, Sequence[DeviceMemory]]  # by section, in data-flow order


class NotResident(PlanError):
    """The sections do not fit at once; the pipeline has another cut for that."""


@dataclass(frozen=True, slots=True)
class Chosen:
    """How the sections share the memory of the devices."""

    phases: tuple[tuple[str, ...], ...]  # sections whose models are there together, one by one
    why: str  # for people

    @property
    def is_phased(self) -> bool:
        """Whether any section waits for another's workers to be gone."""
        return len(self.phases) > 1


def choose(asked: Residency, needs: Needs) -> Chosen:
    """Return which sections are in memory together. Pure.

    Neighbours share a phase as long as they fit, from the last one on: so prompts go first, and
    scoring overlaps editing. Each section fits by itself.

    Raises:
        PlanError: all are to be resident, and there is not the memory.
    """
    names = tuple(needs)
    if asked == "phased" and len(names) > 1:
        return Chosen(tuple((name,) for name in names), "`run.residency: phased` asks for it")
    lack = _lack(needs)
    if not lack:
        return Chosen((names,), _fits(needs))
    if asked == "resident":
        raise PlanError(f"{lack}; say `run.residency: phased`, or give sections other GPUs")
    phases: list[tuple[str, ...]] = []
    for name in reversed(names):
        together = (name, *phases[0]) if phases else (name,)
        if phases and not _lack({one: needs[one] for one in together}):
            phases[0] = together
        else:
            phases.insert(0, (name,))
    return Chosen(tuple(phases), lack)


def _lack(needs: Needs) -> str:
    """Return what the sections lack to be in memory together; "" = nothing, or it is just one."""
    if len(needs) < 2:
        return ""
    for device, (need, free) in _devices(needs).items():
        if need > free:
            return (
                f"{', '.join(needs)} at once need {nbytes_text(need)} on {device}, and "
                f"{nbytes_text(free)} are free"
            )
    return ""


def _fits(needs: Needs) -> str:
    told = (
        f"{nbytes_text(need)} of {nbytes_text(free)} on {device}"
        for device, (need, free) in _devices(needs).items()
    )
    return f"all fit at once: {', '.join(told)}"


def _devices(needs: Needs) -> dict[str, tuple[int, int]]:
    """Return what the sections need of each device, and what of it is free."""
    found: dict[str, tuple[int, int]] = {}
    for one in (one for section in needs.values() for one in section):
        need, free = found.get(one.device, (0, one.free_bytes))
        found[one.device] = (need + one.needed_bytes, min(free, one.free_bytes))
    return found


class Waiting(Protocol):
    """Whoever waits for a section's turn, and hears its workers meanwhile."""

    def wait(self) -> None:
        """Return when `wake` was called since the last time, or earlier."""

    def wake(self) -> None:
        """Have `wait` return. From any thread."""


class LoadOrder:
    """Lets sections load when it is their turn. Each section has a thread of its own."""

    def __init__(
        self, names: Sequence[str], asked: Residency, *, has_other_cut: bool = False
    ) -> None:
        """For sections of these names.

        Args:
            names: in data-flow order.
            asked: what the configuration says.
            has_other_cut: nobody may load if they do not all fit at once.
        """
        self._names, self._asked, self._has_other_cut = names, asked, has_other_cut
        self._lock = threading.RLock()  # a signal's handler may stop it
        self._waiting: list[Waiting] = []
        self._opened: dict[str, OpenedJob] = {}
        self._over: frozenset[str] = frozenset()  # sections without workers, by now or ever
        self._why_not: BaseException | None = None
        self.chosen: Chosen | None = None
        self.turns: dict[str, float] = {}  # when a section could load at last, time.monotonic()

    def may_load(self, name: str, opened: OpenedJob, waiting: Waiting) -> None:
        """Return when section `name` may load.

        Args:
            name: of the section.
            opened: its job.
            waiting: waits in this thread.

        Raises:
            PlanError: the sections do not fit together.
            KeyboardInterrupt: the run is over.
        """
        with self._lock:
            self._opened[name] = opened
            self._waiting.append(waiting)
            self._tell()
        try:
            self._wait_for_turn(name, waiting)
        finally:
            with self._lock:
                self._waiting.remove(waiting)

    def _wait_for_turn(self, name: str, waiting: Waiting) -> None:
        self._wait_for(self._names, waiting, or_opened=True)
        with self._lock:
            if self._why_not is not None:
                raise self._why_not
            if self.chosen is None:
                self._choose()
        if before := self._before(name):
            self._wait_for(before, waiting)
            self.turns[name] = time.monotonic()

    def _choose(self) -> None:
        needs = {n: self._opened[n].plan.memory for n in self._names if n in self._opened}
        try:
            chosen = choose(self._asked, needs)
            if chosen.is_phased and self._has_other_cut:
                raise NotResident(chosen.why)
        except PlanError as error:
            self._stop(error)
            raise
        self.chosen = chosen
        logger.info("residency phases=%s why=%s", chosen.phases, chosen.why)

    def _before(self, name: str) -> tuple[str, ...]:
        """Return the sections of earlier phases."""
        phases = self.chosen.phases if self.chosen else ()
        own = next((number for number, phase in enumerate(phases) if name in phase), 0)
        return tuple(one for phase in phases[:own] for one in phase)

    def _wait_for(
        self, names: Collection[str], waiting: Waiting, *, or_opened: bool = False
    ) -> None:
        """Wait until these sections are over, or opened."""
        while True:
            if self._why_not is not None:
                raise self._why_not
            done = self._over | (set(self._opened) if or_opened else set())
            if done.issuperset(names):
                return
            waiting.wait()

    @property
    def is_phased(self) -> bool:
        """Whether a section's workers must be gone before another one loads."""
        return self.chosen is not None and self.chosen.is_phased

    def end(self, name: str) -> None:
        """The workers of section `name` are gone, or it never had any. Safe to call twice."""
        with self._lock:
            self._over = self._over | {name}
            self._tell()

    def stop(self, why: BaseException) -> None:
        """Have everyone who waits raise `why`."""
        with self._lock:
            self._stop(why)

    def _stop(self, why: BaseException) -> None:
        self._why_not = self._why_not or why
        self._tell()

    def _tell(self) -> None:
        for one in self._waiting:
            one.wake()


def at_once(_opened: OpenedJob, _waiting: Waiting) -> None:
    """Let a section load: inline, the one before has ended."""
