"""One job on its way through the workers: opened, its items run, joined, closed.

Workers may die at any of these. What follows is `recovery.py`'s; here it only means that what was
waited for is asked again.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from types import TracebackType

from ipc.messages import AnyMessage, ItemAdmitted, ItemFailed, ItemsDurable, ItemWritten
from ipc.records import JobUsage
from ipc.setup_messages import (
    Finish,
    Finished,
    JobClosed,
    JobOpened,
    OpenJob,
    SetupFailed,
)
from runtime.account import stage_failed, warn_of_failure
from runtime.admission import Admission
from runtime.closing import close_job
from runtime.config import PipelineConfig
from runtime.crew import ME
from runtime.errors import RunpipeError, WorkerDied, WorkerHung
from runtime.failures import setup_failure
from runtime.fleet import Fleet
from runtime.gpu_use import gpu_free_bytes
from runtime.job_pools import JobPools
from runtime.neighbours import ALONE, Leading, Neighbours
from runtime.recovery import Recovery
from runtime.replay import AnotherLost, merged, runs_of
from runtime.restart import GpuMemory, Steps, come_back
from runtime.restarts import Restarts
from runtime.run_trace import RunTrace
from runtime.setup import OpenedJob
from runtime.tally import Tally
from runtime.worker_plan import WorkerPlan

logger = logging.getLogger(__name__)

LATE_S = 2.0  # how much later a message may come than one that it was sent before


class JobRun:
    """Owns the memory of one job. Belongs to the supervisor's thread."""

    _joined: Finished | None = None
    _neighbours = ALONE

    def __init__(
        self,
        config: PipelineConfig,
        fleet: Fleet,
        opened: OpenedJob,
        tally: Tally,
        trace: RunTrace,
        *,
        number: int,
        durable: Collection[int] = (),
        is_draining: Callable[[], bool] = lambda: False,
    ) -> None:
        """Make nothing yet.

        Args:
            config: of the pipeline.
            fleet: whose workers are prepared for `opened`.
            opened: the job.
            tally: is told of the items.
            trace: of the run.
            number: of the job, from 1.
            durable: items that are finished already.
            is_draining: nothing new is to begin.
        """
        self._config, self._fleet, self._opened = config, fleet, opened
        self._tally, self._trace, self._number = tally, trace, number
        before = runs_of(sorted(durable))
        self._is_draining, self._durable = is_draining, before
        self._plan = plan = opened.plan
        self.admission = Admission(num_items=plan.num_items, window=plan.window, durable=before)
        self._pools = JobPools(plan, fleet, number)
        self._in_job = {plan.joiner} if self.admission.all_finished else {*plan.names}
        self._restarts = Restarts(
            fleet,
            self._pools,
            in_job=self._in_job,
            steps=self._steps,
            job_question=self._question,
            has_joined=self._has_joined,
        )
        self._recovery = Recovery(
            fleet,
            self._pools,
            plan,
            self.admission,
            tally,
            in_job=self._in_job,
            restarts=self._restarts,
            meanwhile=self._hear,
        )

    @property
    def spent(self) -> Mapping[str, JobUsage]:
        """What workers that are dead have cost."""
        return self._recovery.spent

    # --- opening ----------------------------------------------------------------------------------

    def open(self) -> None:
        """Make the pools, and tell everyone of them and of each other.

        Raises:
            PlanError: the memory is not there.
            WorkerDied, WorkerHung, StageFailed: nothing has begun.
        """
        if not self.admission.all_finished:  # else it is only joined, and nobody else has loaded
            self._pools.make()
        workers = [worker for worker in self._plan.workers if worker.name in self._in_job]
        questions = {worker.name: self._question(worker) for worker in workers}
        self._fleet.ask(JobOpened, questions)

    def _question(self, plan: WorkerPlan) -> OpenJob:
        opening = self._pools.opening(plan.name)
        stages = self._config.stages.items()
        return OpenJob(
            **ME,
            job=self._number,
            facts=self._opened.facts,
            path=self._plan.path,
            pools=opening.pools,
            owners=opening.owners,
            places=opening.places,
            peers=tuple(map(self._restarts.peer, self._plan.workers)),
            round_robin=tuple(name for name, stage in stages if stage.assign == "round_robin"),
            items_per_segment=self._plan.items_per_segment,
            num_items=self._plan.num_items,
            window=self._plan.window,
            durable=self._finished(),
            attempts=(*self.admission.attempts(), *self._recovery.droppings.outdated),
            under_way=self._pools.note(plan.name),
            trace=self._trace.open(plan.name, self._pools.name(plan.name, ".trace")),
        )

    def _finished(self) -> tuple[tuple[int, int], ...]:
        """Return what nobody will send, as a sink must know it that begins now."""
        oldest = self.admission.oldest
        ahead = runs_of(self.admission.finished_ahead())
        return merged([(0, oldest), *self._durable, *ahead])

    def _steps(self, plan: WorkerPlan) -> Steps:
        memory = GpuMemory(gpu_free_bytes, self._recovery.droppings.has_open)
        return come_back(plan, self._config, self._opened, self._pools, memory)

    def _has_joined(self, plan: WorkerPlan) -> None:
        self._tally.restarted(plan.name)

    # --- items ------------------------------------------------------------------------------------

    def run_items(self, neighbours: Neighbours = ALONE) -> None:
        """Admit items until all are finished; who is missing then is not awaited.

        Args:
            neighbours: the sections around this one.

        Raises:
            StageFailed: the sink raised.
            RunpipeError: a worker cannot be had back.
            KeyboardInterrupt: what was to be finished is, as `Admission.drain` says.
        """
        self._neighbours = neighbours
        if neighbours.before:
            self.admission.hold_back(self._opened.needs)
        neighbours.reach(self.admission.oldest)
        while not (self.admission.all_finished or self.admission.is_drained):
            self._surviving(self._go_on)
        self._restarts.abandon(but=self._plan.joiner)
        while self._recovery.droppings.is_waiting:  # the next job is to find nothing of this one
            self._surviving(self._go_on)
        self._hear_the_late()
        if not self.admission.all_finished:
            raise KeyboardInterrupt

    def _surviving(self, act: Callable[[], None]) -> None:
        """Do something during which a worker may die."""
        try:
            act()
        except (WorkerDied, WorkerHung) as error:
            self._recovery.died(error.worker, error)
        except AnotherLost as lost:
            self._recovery.died(lost.worker, lost.error)

    def _go_on(self) -> None:
        if self._is_draining():
            self.admission.drain(self._plan.items_per_segment)
        if self._neighbours.before:
            self._look_before(self._neighbours.before)
        self._restarts.act()
        self._admit()
        self._hear_next(self._restarts.deadline)

    def _look_before(self, before: Leading) -> None:
        """Let in what the section before has made ready; it may have ended early."""
        is_over = before.is_over  # first: what it counts after that is its last word
        self.admission.reach(before.count)
        if is_over and self.admission.waits:
            self.admission.end_here()

    def _hear_next(self, deadline: float) -> None:
        if (message := self._fleet.receive(deadline=deadline)) is not None:
            self._hear(message)

    def _admit(self) -> None:
        workers = self._plan.workers_of(self._plan.path[0])
        sources = [worker for worker in workers if not self._restarts.is_away(worker)]
        if not sources:
            return
        for one in self.admission.admit():
            worker = sources[one.item % len(sources)]
            self._recovery.admitted(one, worker)
            self._tally.items_replayed += one.attempt > 0
            admitted = ItemAdmitted(**ME, item=one.item, attempt=one.attempt, failed=one.failed)
            self._fleet.send(worker, admitted)

    def _hear(self, message: AnyMessage) -> None:
        match message:
            case ItemWritten():
                self._tally.wrote(message)
            case ItemsDurable():
                items = [one.item for one in message.items]
                if not set(items) <= set(self.admission.unfinished()):
                    raise RunpipeError(f"{message.sender} says that items are durable: {items}")
                self._tally.durable(message)
                self._recovery.finished(message.items)
                self._neighbours.reach(self.admission.oldest)
                logger.debug("durable items=%s", items)
            case ItemFailed() if message.stage == self._plan.path[-1]:
                raise stage_failed(message)  # its place in the output stays open
            case ItemFailed():
                if message.attempt == self.admission.attempt(message.item):
                    self._tally.failed(message)
                    warn_of_failure(stage_failed(message), self._tally)
            case Finished():
                self._joined = message
            case SetupFailed() if message.what == Finish.__name__:
                raise setup_failure(message)
            case _ if not self._recovery.hear(message):
                what = type(message).__name__
                raise RunpipeError(f"{message.sender} says {what}, which nobody asked for now")

    def _hear_the_late(self) -> None:
        """Let those who failed say why, if the sink told of it first."""
        deadline = time.monotonic() + LATE_S
        while not self._tally.all_told and time.monotonic() < deadline:
            self._surviving(lambda: self._hear_next(deadline))
        self._tally.explain_rest()

    # --- the end ----------------------------------------------------------------------------------

    def finish(self) -> Sequence[str]:
        """Have the sink join the output; return what it warns of.

        Raises:
            ConfigError, StageFailed: it cannot.
            RunpipeError: a worker cannot be had back.
        """
        joiner, asked = self._plan.joiner, -1  # which incarnation was
        while self._joined is None:
            worker = self._fleet.workers.get(joiner)
            if worker and not self._restarts.is_away(joiner) and asked != worker.incarnation:
                asked = worker.incarnation
                self._fleet.send(joiner, Finish(**ME, num_items=self._plan.num_items))
            self._surviving(self._go_on)
        return self._joined.warnings

    def close_job(self) -> dict[str, JobClosed]:
        """Have everyone let go of it, and say what it has cost; who dies now is not missed."""
        self._restarts.abandon(but="")
        return close_job(self._fleet, self._in_job)

    def close(self) -> None:
        """Give the memory up. Safe to call twice."""
        self._pools.close()

    def __enter__(self) -> JobRun:
        """Return the run of the job."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Give the memory up."""
        self.close()
