"""What follows a worker's death while items run: what is lost, begins again; the worker comes back.

1. The dead is buried, and all who live are asked how far the items have come (`PeerDied`, `Held`).
2. What nobody holds is lost. All drop older attempts of it (`droppings.py`), then it is admitted
   again. Everybody else goes on meanwhile.
3. Beside all that the worker is started anew (`restarts.py`).
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence

from msgspec.structs import replace

from ipc.messages import AnyMessage, ItemPassed
from ipc.records import ItemAttempt, ItemPlace, JobUsage
from ipc.replay_messages import Held, ItemsDropped, PeerDied, PeerMet
from ipc.setup_messages import Finish, SetupFailed
from runtime.account import stage_failed, warn_of_failure
from runtime.admission import Admission, Admitted
from runtime.crew import ME
from runtime.droppings import Droppings
from runtime.errors import RunpipeError, WorkerDied, WorkerHung
from runtime.failures import killed_twice, setup_failure
from runtime.fleet import Fleet
from runtime.job_pools import JobPools
from runtime.ledger import NOWHERE
from runtime.plan import Plan
from runtime.replay import AnotherLost, Dead, Toll, take_stock
from runtime.restarts import Restarts
from runtime.stacks import examine
from runtime.tally import Tally
from runtime.under_way import Noted
from runtime.usage import added

logger = logging.getLogger(__name__)

HELD_S = 2.0  # how long the living may take to say what they hold; their small threads answer
MAX_DEATHS = 5  # of one worker, while not one item gets finished or given up
DELAY_S = 0.5  # before the third of these is restarted; twice as long before each further one


class Recovery:
    """One job. Belongs to the supervisor's thread."""

    def __init__(
        self,
        fleet: Fleet,
        pools: JobPools,
        plan: Plan,
        admission: Admission,
        tally: Tally,
        *,
        in_job: set[str],
        restarts: Restarts,
        meanwhile: Callable[[AnyMessage], None],
    ) -> None:
        """Begin with everybody well.

        Args:
            fleet: of the run.
            pools: of the job.
            plan: of the job.
            admission: which items begin when.
            tally: what is told of them.
            in_job: the workers that have the job open.
            restarts: brings workers back.
            meanwhile: is given messages that are not about deaths.
        """
        self._fleet, self._pools, self._plan = fleet, pools, plan
        self._admission, self._tally = admission, tally
        self._in_job, self._restarts, self._meanwhile = in_job, restarts, meanwhile
        self._sent: dict[int, ItemPlace] = {}  # items -> where they were admitted
        self.droppings = Droppings(fleet, pools, plan, admission, in_job=in_job, restarts=restarts)
        self._asked = 0
        self._deaths: Counter[str] = Counter()  # since an item was finished
        self.spent: dict[str, JobUsage] = {}  # by workers that are dead

    def admitted(self, one: Admitted, worker: str) -> None:
        """Note that an item is on its way to the source's worker."""
        self._sent[one.item] = ItemPlace(
            item=one.item, attempt=one.attempt, position=0, worker=worker
        )

    def finished(self, durable: Sequence[ItemAttempt]) -> None:
        """Note that items are durable."""
        self._deaths.clear()
        self.droppings.outdate(durable)
        items = [one.item for one in durable]
        self._admission.finish(items)
        for item in items:
            self._sent.pop(item, None)
        self._pools.finish(items)
        self.droppings.unmap()

    def hear(self, message: AnyMessage) -> bool:
        """Take a message about deaths and returns; False if it is none.

        Raises:
            RunpipeError: a worker cannot be had back.
        """
        match message:
            case Held():
                pass  # came too late
            case ItemsDropped():
                self.droppings.answered(message)
            case ItemPassed() if message.stage in self._plan.path:
                position = self._plan.path.index(message.stage)
                self._admission.passed(message.item, message.attempt, position)
            case _ if lost := self._lost_by(message):
                self.died(lost.worker, lost.error)
            case _:
                return self._restarts.hear(message)
        return True

    def _lost_by(self, message: AnyMessage) -> AnotherLost | None:
        """Return who cannot go on, if the message says that; a join that fails ends the run."""
        if isinstance(message, SetupFailed) and message.what != Finish.__name__:
            return AnotherLost(message.sender, setup_failure(message))
        if isinstance(message, PeerMet) and self._restarts.is_refused(message):
            return AnotherLost(message.peer, RunpipeError(message.error))
        return None

    # --- a death ----------------------------------------------------------------------------------

    def died(self, worker: str, error: Exception) -> None:
        """A worker is dead, or hangs, or cannot do what it must: bury it, and go on without loss.

        Raises:
            RunpipeError: it cannot be had back, or it died too often.
        """
        dead: dict[str, Dead] = {}
        while True:
            if self._restarts.is_unknown(worker):
                self._restarts.failed(worker, error)
            else:
                dead[worker] = self._bury(worker, error)
            if not dead:
                return
            try:
                claims = self._ask(dead.values())
                break
            except (WorkerDied, WorkerHung) as another:
                worker, error = another.worker, another
            except AnotherLost as another:
                worker, error = another.worker, another.error
        gone = {name: pool for one in dead for name, pool in self._pools.gone_with(one).items()}
        answered = self._in_job & claims.keys()
        toll = take_stock(
            self._admission.under_way(), claims, answered, self._plan, list(gone.values())
        )
        for item, position in toll.held.items():  # the dead may not have said so
            self._admission.passed(item, self._admission.attempt(item), position - 1)
        attempts = self._begin_again(toll, dead)
        for name in dead:
            self._pools.retire(name, toll.held, gone)
        self.droppings.begin(dead.values(), attempts, toll.held, gone)
        for one in dead.values():
            self._have_back(one)

    def _bury(self, worker: str, error: Exception) -> Dead:
        """Let go of a worker; return what it ran."""
        self._deaths[worker] += 1
        incarnation = self._fleet.workers[worker].incarnation
        if isinstance(error, WorkerHung):
            self._tally.hangs.append(examine(error, self._fleet))
        self._fleet.bury(worker)
        self._in_job.discard(worker)
        self._restarts.forget(worker, error)
        self.droppings.forget(worker)
        for item, place in self._sent.items():
            if place.worker == worker:
                self._sent[item] = replace(place, worker=NOWHERE)
        if (beat := self._fleet.beats.pop(worker, None)) is not None:
            self.spent[worker] = added(self.spent.get(worker, JobUsage()), beat.usage)
        logger.warning("%s; its items begin again", error)
        return Dead(worker, incarnation, error, self._pools.noted(worker))

    def _ask(self, dead: Iterable[Dead]) -> Mapping[str, Sequence[ItemPlace]]:
        """Return how far items have come, as the living know it, and we.

        Who does not answer in time holds nothing: what it has is dropped like all that is lost.

        Raises:
            WorkerDied, WorkerHung, AnotherLost: another one.
        """
        self._asked += 1
        died = PeerDied(**ME, asked=self._asked, dead=tuple(one.record for one in dead))
        for worker in sorted(self._in_job):
            self._fleet.send_pulse(worker, died)
        claims: dict[str, Sequence[ItemPlace]] = {ME["sender"]: tuple(self._sent.values())}
        waiting, deadline = set(self._in_job), time.monotonic() + HELD_S
        while waiting and (message := self._fleet.receive(deadline=deadline, wakes=False)):
            if isinstance(message, Held) and message.asked == self._asked:
                claims[message.sender] = message.items
                waiting.discard(message.sender)
            elif lost := self._lost_by(message):
                raise lost
            else:
                self._meanwhile(message)
        return claims

    def _begin_again(self, toll: Toll, dead: Mapping[str, Dead]) -> dict[int, int]:
        """Have the lost items admitted again later; return their attempts."""
        before = self._admission.under_way()
        attempts = self._admission.lose(toll.lost)
        for one in dead.values():
            for run in one.ran:
                if before.get(run.item) == run.attempt and run.item in attempts:
                    self._blame(run, one.worker, one.error)
        return attempts

    def _blame(self, run: Noted, worker: str, error: Exception) -> None:
        if self._admission.is_given_up(run.item):
            raise error  # even marked it kills
        path = self._plan.path
        is_sink = run.position == len(path) - 1  # which takes items in order, none alone
        failed = killed_twice(worker, path[run.position], run, error)
        why = f"{failed.stage}: {failed.error}"
        if self._admission.blame(run.item, run.position, why, alone=not is_sink):
            self._deaths.clear()
            self._tally.failed(failed)
            warn_of_failure(stage_failed(failed), self._tally)

    def _have_back(self, dead: Dead) -> None:
        """Restart a worker, later if that has not helped before.

        Raises:
            Exception: its error, if it has not helped too often.
        """
        if self._admission.all_finished and dead.worker != self._plan.joiner:
            return  # nobody needs it
        deaths = self._deaths[dead.worker]
        if deaths > MAX_DEATHS:
            raise dead.error
        plan = next(plan for plan in self._plan.workers if plan.name == dead.worker)
        delay_s = DELAY_S * 2 ** (deaths - 3) if deaths >= 3 else 0.0
        self._restarts.begin(plan, delay_s=delay_s)
