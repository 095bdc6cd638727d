"""A run as others may look at it while it goes on: from any thread, waiting for nobody."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from ipc.messages import Heartbeat
from runtime.account import Account
from runtime.setup import Setup
from runtime.tally import Tally
from runtime.worker_plan import WorkerPlan

STARTING, LOADING, PREPARING, RUNNING = "starting", "loading weights", "preparing", "running"
JOINING, STOPPING = "joining the output", "stopping"
CHECKING = "checking what is durable"


class Beating(Protocol):
    """Whoever hears the workers' hearts."""

    def beats(self) -> Mapping[str, Heartbeat]:
        """Return the last heartbeat of each worker."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerNow:
    """One worker at one moment."""

    name: str
    device: str  # "cuda:0", "cpu"
    gpu_use: float | None  # share of the run so far in which its GPU ran kernels, 0 to 1
    beat: Heartbeat | None  # its last; None: none yet


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """A run at one moment."""

    at: float  # time.monotonic()
    elapsed_s: float  # since the run began, loading and all
    phase: str  # STARTING, LOADING, ...
    unit: str  # "frame pairs"; "" until items run, as `num_units` is 0
    num_units: int
    units_done: int
    items_failed: int
    workers: tuple[WorkerNow, ...]
    sections: tuple[Snapshot, ...] = ()  # of a run in sections; the rest is of all of them


class Shown(Protocol):
    """A run that may be looked at: whole, or in sections."""

    def snapshot(self) -> Snapshot:
        """Return the run as it is now."""


class Live:
    """Written by the run, in its own thread, as it goes on; read with `snapshot` from any.

    Every field is read once and as a whole, so a snapshot may mix two moments, and no reader can
    hold the run up.
    """

    def __init__(self, tally: Tally, account: Account) -> None:
        self.tally = tally
        self.phase = STARTING
        self._account = account
        self._began = time.monotonic()
        self._setup: Setup | None = None
        self._runner: Beating | None = None

    def show(self, setup: Setup, runner: Beating) -> None:
        """Show these workers from now on."""
        self._setup, self._runner = setup, runner

    def snapshot(self) -> Snapshot:
        """Return the run as it is now."""
        now, tally, phase = time.monotonic(), self.tally, self.phase
        if phase == RUNNING:
            if not tally.num_items:
                phase = PREPARING  # pools are made
            elif tally.items_durable == tally.num_items:
                phase = JOINING
        return Snapshot(
            at=now,
            elapsed_s=now - self._began,
            phase=phase,
            unit=tally.unit,
            num_units=tally.num_units,
            units_done=tally.units_done,
            items_failed=tally.items_failed,
            workers=self._workers(),
        )

    def _workers(self) -> tuple[WorkerNow, ...]:
        if self._setup is None or self._runner is None:
            return ()
        beats = self._runner.beats()
        return tuple(self._worker(plan, beats.get(plan.name)) for plan in self._setup.workers)

    def _worker(self, plan: WorkerPlan, beat: Heartbeat | None) -> WorkerNow:
        use = self._account.gpu_use.mean(plan.gpu.uuid) if plan.gpu else None
        return WorkerNow(name=plan.name, device=plan.shown_device, gpu_use=use, beat=beat)
