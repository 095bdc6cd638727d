"""The workers that are on their way back: started, asked, brought into the job one by one.

Knows no items: what a death has cost is `runtime/recovery.py`'s.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from math import inf

from ipc.messages import AnyMessage
from ipc.records import Peer, PoolAddress
from ipc.replay_messages import MeetPeer, PeerMet
from ipc.setup_messages import JobOpened, OpenJob, Prepared, Started
from runtime.crew import ME
from runtime.errors import RunpipeError
from runtime.fleet import Fleet
from runtime.job_pools import JobPools
from runtime.replay import AnotherLost
from runtime.restart import Ask, Steps
from runtime.worker_plan import WorkerPlan

logger = logging.getLogger(__name__)

MAX_FAILED_STARTS = 3  # in a row, then the run ends
BACK_OFF_S = 0.25  # after the first failed start, and four times as long after the second


@dataclass(slots=True)
class _Restart:
    """One worker that is not there."""

    plan: WorkerPlan
    not_before: float
    began: float = field(default_factory=time.monotonic)  # its death was seen
    steps: Steps | None = None  # None: its process is not started
    expects: type[AnyMessage] | None = None  # the answer it owes
    loads_since: float = 0.0  # it imports, reads weights, prepares
    load_s: float = 0.0
    on_gpu: tuple[PoolAddress, ...] | None = None  # its pool there; None: it is not ready to join
    unmet: set[str] | None = None  # who has not opened its pools yet; None: nobody was asked


class Restarts:
    """Belongs to the supervisor's thread, for one job."""

    def __init__(
        self,
        fleet: Fleet,
        pools: JobPools,
        *,
        in_job: set[str],
        steps: Callable[[WorkerPlan], Steps],
        job_question: Callable[[WorkerPlan], OpenJob],
        has_joined: Callable[[WorkerPlan], None],
    ) -> None:
        """Begin with nobody.

        Args:
            fleet: of the run.
            pools: of the job.
            in_job: the workers that have it open; those who come back are added as soon as the
                others know of them.
            steps: what a worker is asked until it is ready.
            job_question: what it is told last.
            has_joined: called when the others know of it.
        """
        self._fleet, self._pools, self._in_job = fleet, pools, in_job
        self._steps, self._job_question, self._has_joined = steps, job_question, has_joined
        self._away: dict[str, _Restart] = {}
        self._failures: Counter[str] = Counter()  # of starts in a row, by worker

    @property
    def deadline(self) -> float:
        """When `act` has something to do, if no message comes before."""
        due = (one for one in self._away.values() if not one.expects and one.on_gpu is None)
        return min((one.not_before for one in due), default=inf)

    def begin(self, plan: WorkerPlan, *, delay_s: float = 0.0) -> None:
        """A worker that others knew is dead and buried: have it back."""
        delay_s = max(delay_s, self._back_off_s(plan.name))
        self._away[plan.name] = _Restart(plan, time.monotonic() + delay_s)

    def _back_off_s(self, worker: str) -> float:
        failures = self._failures[worker]
        return BACK_OFF_S * 4 ** (failures - 1) if failures else 0.0

    def is_away(self, worker: str) -> bool:
        """Whether it is on its way back."""
        return worker in self._away

    def is_unknown(self, worker: str) -> bool:
        """Whether it is on its way back, and the others have not been told of it."""
        return worker in self._away and self._away[worker].unmet is None

    def forget(self, worker: str, error: Exception) -> None:
        """A worker that others knew is dead: it answers nobody any more.

        Raises:
            Exception: this error, if it had not opened the job, too often in a row.
        """
        for one in self._away.values():
            if one.unmet is not None:
                one.unmet.discard(worker)
        if self._away.pop(worker, None) is not None:
            self._count_failure(worker, error)

    def abandon(self, *, but: str) -> None:
        """The items are finished: nobody but this worker need come back."""
        for name in [name for name in self._away if name != but]:
            one = self._away.pop(name)
            if one.steps is not None:
                one.steps.close()
            if name in self._fleet.workers:
                self._fleet.bury(name)
            self._in_job.discard(name)
            for other in self._away.values():
                if other.unmet is not None:
                    other.unmet.discard(name)

    def failed(self, worker: str, error: Exception) -> None:
        """A worker that nobody knew yet is dead, or could not do what it was asked.

        Raises:
            Exception: this error, after too many in a row.
        """
        one = self._away[worker]
        if worker in self._fleet.workers:
            self._fleet.bury(worker)
        if one.steps is not None:
            one.steps.close()
        self._count_failure(worker, error)
        delay_s = self._back_off_s(worker)
        now = time.monotonic()
        load_s = one.load_s + (now - one.loads_since if one.loads_since else 0.0)
        self._away[worker] = _Restart(one.plan, now + delay_s, began=one.began, load_s=load_s)

    def _count_failure(self, worker: str, error: Exception) -> None:
        self._failures[worker] += 1
        if self._failures[worker] >= MAX_FAILED_STARTS:
            raise error
        delay_s = self._back_off_s(worker)
        logger.warning("cannot restart worker=%s: %s; again in %g s", worker, error, delay_s)

    def hear(self, message: AnyMessage) -> bool:
        """Take an answer; False if it is not one that is waited for."""
        if isinstance(message, PeerMet):
            if one_met := self._met(message):
                one_met.discard(message.sender)
            return True
        one_away = self._away.get(message.sender)
        if one_away is None:
            return False
        if isinstance(message, JobOpened):
            self._end(one_away)
        elif one_away.expects is not None and isinstance(message, one_away.expects):
            if isinstance(message, Started):
                self._fleet.connect(message.sender)
                one_away.loads_since = time.monotonic()
            if isinstance(message, Prepared):
                one_away.load_s += time.monotonic() - one_away.loads_since
            self._go_on(one_away, message)
        else:
            return False
        return True

    def _met(self, message: PeerMet) -> set[str]:
        """Return who has not opened the pools of the incarnation that is spoken of."""
        one, worker = self._away.get(message.peer), self._fleet.workers.get(message.peer)
        if one is None or worker is None or worker.incarnation != message.peer_incarnation:
            return set()
        return one.unmet or set()

    def is_refused(self, message: PeerMet) -> bool:
        """Whether a worker could not open the pools of another one that is there, and waits."""
        return bool(message.error) and message.sender in self._met(message)

    @property
    def is_opening(self) -> bool:
        """Whether a worker has been told what to open, and has not answered."""
        return any(one.unmet or one.expects is JobOpened for one in self._away.values())

    def act(self) -> None:
        """Do what is due: start processes, go on after a pause, bring one in.

        Raises:
            AnotherLost: one that the others know cannot open the job.
            RunpipeError: a worker failed too often.
        """
        now = time.monotonic()
        for one in list(self._away.values()):
            if not one.expects and one.on_gpu is None and now >= one.not_before:
                self._go_on(one, None)
        ready = [one for one in self._away.values() if one.on_gpu is not None]
        if ready:  # one after the other, so that each knows of those before it
            self._bring_in(next((one for one in ready if one.unmet is not None), ready[0]))

    def _go_on(self, one: _Restart, answer: AnyMessage | None) -> None:
        try:
            if one.steps is None:
                self._fleet.begin(one.plan)
                one.steps = self._steps(one.plan)
                step = next(one.steps)
            else:
                step = one.steps.send(answer)
        except StopIteration as end:
            one.expects, one.on_gpu = None, end.value
            return
        except RunpipeError as error:
            self.failed(one.plan.name, error)
            return
        if isinstance(step, Ask):
            one.expects = step.kind
            if step.question is not None:
                self._fleet.send(one.plan.name, step.question)
        else:
            one.expects, one.not_before = None, step.when

    def _bring_in(self, one: _Restart) -> None:
        """Have all others open its pools, and then have it open the job."""
        if one.expects is not None:
            return  # it does
        name = one.plan.name
        if one.unmet is None:
            assert one.on_gpu is not None
            try:
                self._pools.renew(name, one.on_gpu)
            except RunpipeError as error:
                self.failed(name, error)
                return
            one.unmet = set(self._in_job)
            self._in_job.add(name)
            self._has_joined(one.plan)
            for worker in sorted(one.unmet):
                self._introduce(one.plan, worker)
        if not one.unmet:
            try:
                question = self._job_question(one.plan)
            except RunpipeError as error:  # the others know of it: to them it dies
                raise AnotherLost(name, error) from error
            self._fleet.send(name, question)
            one.expects = JobOpened

    def _introduce(self, plan: WorkerPlan, to: str) -> None:
        opening = self._pools.opening_of(plan.name, to)
        met = MeetPeer(
            **ME,
            peer=self.peer(plan),
            pools=opening.pools,
            owners=opening.owners,
            places=opening.places,
        )
        self._fleet.send(to, met)

    def peer(self, plan: WorkerPlan) -> Peer:
        """Return how others know a worker; one that is not there has no endpoint."""
        worker = self._fleet.workers[plan.name] if plan.name in self._in_job else None
        return Peer(
            worker=plan.name,
            incarnation=worker.incarnation if worker else -1,
            stages=plan.stages,
            endpoint=worker.endpoint if worker else "",
        )

    def _end(self, one: _Restart) -> None:
        del self._away[one.plan.name]
        del self._failures[one.plan.name]
        took_s = time.monotonic() - one.began - one.load_s
        incarnation = self._fleet.workers[one.plan.name].incarnation
        logger.warning(
            "restarted worker=%s incarnation=%d load_s=%.1f took_s=%.1f",
            one.plan.name,
            incarnation,
            one.load_s,
            took_s,
        )
