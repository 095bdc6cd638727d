"""What the runs of a pipeline have in common: its fleet, the jobs one after the other, the counts.

A job's own course is `runtime/job_run.py`.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Collection, Sequence
from contextlib import suppress

from msgspec.structs import replace

from ipc.messages import Heartbeat
from ipc.records import JobUsage
from ipc.replay_messages import Held, PeerDied
from ipc.setup_messages import JobClosed
from runtime.config import PipelineConfig
from runtime.crew import ME
from runtime.errors import RunpipeError
from runtime.fleet import Fleet
from runtime.job_run import JobRun
from runtime.neighbours import ALONE, Neighbours
from runtime.run_trace import RunTrace
from runtime.setup import OpenedJob
from runtime.tally import Tally
from runtime.usage import added

logger = logging.getLogger(__name__)

BEAT_S = 0.5  # how long a run that ends waits for the last counts


class Supervisor:
    """Policy over a fleet. Belongs to one thread at a time, but for `drain`."""

    def __init__(self, config: PipelineConfig, fleet: Fleet) -> None:
        self._config, self._fleet = config, fleet
        self._num_jobs = 0
        self._job: JobRun | None = None  # of this run, once it is open
        self._closed: dict[str, JobClosed] = {}
        self._is_draining = False

    def pids(self) -> dict[str, int]:
        """Return the process of each worker."""
        return self._fleet.pids()

    def begin(self) -> None:
        """A run begins: what earlier ones have cost is no part of it."""
        self._job, self._closed, self._is_draining = None, {}, False

    def beats(self) -> dict[str, Heartbeat]:
        """Return the last heartbeat of each worker, with what this run has cost it."""
        usages = self.usages()
        return {
            name: replace(beat, usage=usages.get(name, JobUsage()))
            for name, beat in list(self._fleet.beats.items())
        }

    def usages(self) -> dict[str, JobUsage]:
        """Return what this run has cost each worker, as far as they have told."""
        told = {name: beat.usage for name, beat in list(self._fleet.beats.items())}
        told |= {name: closed.usage for name, closed in self._closed.items()}
        # one that had no job yet has not begun here
        mine = (0, self._num_jobs) if self._job else ()
        usages = {name: usage for name, usage in told.items() if usage.job in mine}
        for name, spent in (dict(self._job.spent) if self._job else {}).items():
            usages[name] = added(spent, usages.get(name, JobUsage()))
        return usages

    def wait(self) -> None:
        """Hear the workers, who have nothing to do, until `wake` is called.

        Raises:
            WorkerDied, WorkerHung: one is gone.
            RunpipeError: one says something that nobody asked for.
        """
        if (message := self._fleet.receive()) is not None:
            raise RunpipeError(f"{message.sender} says {type(message).__name__} while it waits")

    def wake(self) -> None:
        """Have `wait` return. From any thread."""
        self._fleet.wake()

    def drain(self) -> None:
        """End the run when what has begun is done. From any thread, or a signal's handler."""
        self._is_draining = True
        self._fleet.wake()

    def run(
        self,
        opened: OpenedJob,
        tally: Tally,
        trace: RunTrace,
        durable: Collection[int] = (),
        neighbours: Neighbours = ALONE,
    ) -> list[str]:
        """Run all items but the durable ones; return what the sink warns of.

        Failed items are in `tally`.

        Args:
            opened: the job, for which everybody is prepared.
            tally: is told of the items.
            trace: of the run.
            durable: items that are finished already, in order.
            neighbours: the sections around this one.

        Raises:
            StageFailed: the sink raised.
            WorkerDied, WorkerHung: a worker is gone, and cannot be had back.
            KeyboardInterrupt: `drain` was called, and what had begun is finished.
        """
        self._num_jobs += 1
        self._job = job = JobRun(
            self._config,
            self._fleet,
            opened,
            tally,
            trace,
            number=self._num_jobs,
            durable=durable,
            is_draining=lambda: self._is_draining,
        )
        with neighbours.waking(self._fleet.wake), job:
            with trace.step("open job"):
                job.open()
            tally.start(
                unit=opened.unit, num_units=opened.num_units, num_items=opened.plan.num_items
            )
            return self._run_open(job, tally, trace, neighbours)

    def _run_open(
        self, job: JobRun, tally: Tally, trace: RunTrace, neighbours: Neighbours
    ) -> list[str]:
        try:
            with trace.step("items"):
                job.run_items(neighbours)
        except (RunpipeError, KeyboardInterrupt):
            self._hear_last_beats()
            raise
        warnings: Sequence[str] = ()
        if tally.items_failed < tally.num_items:
            with trace.step("finish"):
                warnings = job.finish()
        with trace.step("close job"):
            self._closed = job.close_job()
        return list(warnings)

    def _hear_last_beats(self) -> None:
        """Ask everyone for a heartbeat: the run is about to end, and its report wants the counts.

        Each beats before it answers who holds what.
        """
        waiting = {name for name, worker in self._fleet.workers.items() if worker.pulse}
        for name in waiting:
            self._fleet.send_pulse(name, PeerDied(**ME, asked=-1, dead=()))
        deadline = time.monotonic() + BEAT_S
        with suppress(RunpipeError):
            while waiting and time.monotonic() < deadline:
                if isinstance(message := self._fleet.receive(deadline=deadline), Held):
                    waiting.discard(message.sender)
