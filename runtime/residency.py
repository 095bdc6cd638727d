"""Whether all sections of a run have their models in memory at once, or one after the other."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from runtime.cli_table import nbytes_text
from runtime.errors import PlanError
from runtime.plan_memory import DeviceMemory
from runtime.setup import OpenedJob

logger = logging.getLogger(__name__)

Residency = Literal["auto", "resident", "phased"]


@dataclass(frozen=True, slots=True)
class Chosen:
    """How the sections share the memory of the devices."""

    is_phased: bool
    why: str  # one line, for people


def choose(asked: Residency, sections: Sequence[Sequence[DeviceMemory]]) -> Chosen:
    """Return whether the sections load together or one after the other. Pure.

    Args:
        asked: what the configuration says.
        sections: what each needs of each device; every one of them fits by itself.

    Raises:
        PlanError: all are to be resident, and there is not the memory.
    """
    if len(sections) < 2:
        return Chosen(is_phased=False, why="one section")
    if asked == "phased":
        return Chosen(is_phased=True, why="`run.residency: phased` asks for it")
    needs = {device: _needed(device, sections) for device in _devices(sections)}
    short = [(device, need, free) for device, (need, free) in needs.items() if need > free]
    if not short:
        told = ", ".join(
            f"{nbytes_text(need)} of {nbytes_text(free)} on {device}"
            for device, (need, free) in needs.items()
        )
        return Chosen(is_phased=False, why=f"all sections fit at once: {told}")
    device, need, free = short[0]
    lacking = (
        f"all sections at once need {nbytes_text(need)} on {device}, and "
        f"{nbytes_text(free)} are free"
    )
    if asked == "resident":
        raise PlanError(f"{lacking}; say `run.residency: phased`, or give them other GPUs")
    return Chosen(is_phased=True, why=lacking)


def _devices(sections: Iterable[Sequence[DeviceMemory]]) -> list[str]:
    return list(dict.fromkeys(one.device for section in sections for one in section))


def _needed(device: str, sections: Iterable[Sequence[DeviceMemory]]) -> tuple[int, int]:
    here = [one for section in sections for one in section if one.device == device]
    return sum(one.needed_bytes for one in here), min(one.free_bytes for one in here)


class LoadOrder:
    """Lets sections load when it is their turn. Each section has a thread of its own."""

    def __init__(self, names: Sequence[str], asked: Residency) -> None:
        """For sections of these `names`, in data-flow order."""
        self._names, self._asked = names, asked
        self._changed = threading.Condition()
        self._opened: dict[str, OpenedJob] = {}
        self._over: set[str] = set()  # sections whose workers are gone, or that have none
        self._why_not: BaseException | None = None
        self.chosen: Chosen | None = None
        self.turns: dict[str, float] = {}  # when a section could load at last, time.monotonic()

    def may_load(self, name: str, opened: OpenedJob) -> None:
        """Return when section `name` may load.

        Raises:
            PlanError: the sections do not fit together.
            KeyboardInterrupt: the run is over.
        """
        with self._changed:
            self._opened[name] = opened
            self._changed.notify_all()
            self._wait_for(self._names)
            if self.chosen is None:
                self._choose()
            if self.is_phased:
                self._wait_for_turn(name)

    def _choose(self) -> None:
        plans = [one.plan.memory for one in self._opened.values()]
        try:
            self.chosen = choose(self._asked, plans)
        except PlanError as error:
            self._stop(error)
            raise
        logger.info("residency phased=%s why=%s", self.chosen.is_phased, self.chosen.why)

    def _wait_for_turn(self, name: str) -> None:
        before = self._names[: self._names.index(name)]
        while not self._over.issuperset(before):
            self._wait()
        if before:
            self.turns[name] = time.monotonic()

    def _wait_for(self, names: Collection[str]) -> None:
        while not (self._opened.keys() | self._over).issuperset(names):
            self._wait()

    def _wait(self) -> None:
        if self._why_not is not None:
            raise self._why_not
        self._changed.wait()
        if self._why_not is not None:
            raise self._why_not

    @property
    def is_phased(self) -> bool:
        """Whether a section's workers must be gone before the next one loads."""
        return self.chosen is not None and self.chosen.is_phased

    def end(self, name: str) -> None:
        """The workers of section `name` are gone, or it never had any. Safe to call twice."""
        with self._changed:
            self._over.add(name)
            self._changed.notify_all()

    def stop(self, why: BaseException) -> None:
        """Have everyone who waits raise `why`."""
        with self._changed:
            self._stop(why)

    def _stop(self, why: BaseException) -> None:
        self._why_not = why
        self._changed.notify_all()
