"""Run the items of a job through worker processes: admit, hear what is durable, join, close."""

from __future__ import annotations

import logging
import time
from contextlib import ExitStack

from ipc.messages import (
    CloseJob,
    Finish,
    Finished,
    Held,
    ItemAdmitted,
    ItemFailed,
    ItemsDurable,
    ItemWritten,
    JobClosed,
    JobOpened,
    OpenJob,
    PeerDied,
)
from ipc.records import Peer
from runtime.admission import Admission
from runtime.config import PipelineConfig
from runtime.errors import StageFailed, WorkerDied, WorkerHung
from runtime.fleet import Fleet
from runtime.pools import make_pools
from runtime.setup import ME, OpenedJob
from runtime.tally import Tally

logger = logging.getLogger(__name__)

LATE_S = 2.0  # how much later a message may come than one that it was sent before
HELD_S = 2.0  # how long the living may take to say what they hold; their small threads answer


class Supervisor:
    """Policy over a fleet. Belongs to one thread at a time."""

    def __init__(self, config: PipelineConfig, fleet: Fleet) -> None:
        self._config, self._fleet = config, fleet
        self._num_jobs = 0

    def pids(self) -> dict[str, int]:
        """Return the process of each worker."""
        return self._fleet.pids()

    def run(self, opened: OpenedJob, tally: Tally) -> tuple[dict[str, JobClosed], list[str]]:
        """Run all items; return what each worker did, and what the sink warns of.

        Raises:
            StageFailed: a stage raised.
            WorkerDied, WorkerHung: a worker is gone; `items` are those that went with it.
        """
        plan = opened.plan
        admission = Admission(num_items=plan.num_items, window=plan.window)
        with ExitStack() as pools:
            self._open_job(opened, pools)
            tally.start(unit=opened.unit, num_units=opened.num_units, num_items=plan.num_items)
            try:
                self._run_items(opened, admission, tally)
            except WorkerDied as error:
                lost = self._lost_items(error.worker, admission, tally)
                raise WorkerDied(error.worker, error.how, lost) from None
            except WorkerHung as error:
                lost = self._lost_items(error.worker, admission, tally)
                raise WorkerHung(
                    error.worker, error.what, waited_s=error.waited_s, items=lost
                ) from None
            sink = plan.workers_of(plan.path[-1])[0]
            finish = Finish(**ME, items=tuple(range(plan.num_items)))
            finished = self._fleet.ask(Finished, {sink: finish})[sink]
            workers = [worker.name for worker in plan.workers]
            closed = self._fleet.ask(JobClosed, dict.fromkeys(workers, CloseJob(**ME)))
        return closed, list(finished.warnings)

    def _open_job(self, opened: OpenedJob, pools: ExitStack) -> None:
        """Make the pools, and tell everyone of them and of each other."""
        self._num_jobs += 1
        plan = opened.plan
        names = {
            name: f"{name}.{worker.incarnation}@host#{self._num_jobs}"
            for name, worker in self._fleet.workers.items()
        }
        addresses = make_pools(plan, names, pools)
        peers = tuple(
            Peer(
                worker=worker.plan.name,
                incarnation=worker.incarnation,
                stages=worker.plan.stages,
                endpoint=worker.endpoint,
            )
            for worker in self._fleet.workers.values()
        )
        round_robin = tuple(n for n, s in self._config.stages.items() if s.assign == "round_robin")
        places = {pool.owner: pool.places for pool in plan.pools}
        questions = {
            worker.name: OpenJob(
                **ME,
                facts=opened.facts,
                path=plan.path,
                pools=tuple(addresses[owner] for owner in plan.pools_of(worker.name)),
                owners={address.name: owner for owner, address in addresses.items()},
                places=places.get(worker.name, ()),
                peers=peers,
                round_robin=round_robin,
                items_per_segment=plan.items_per_segment,
                num_items=plan.num_items,
                durable=(),
            )
            for worker in plan.workers
        }
        self._fleet.ask(JobOpened, questions)

    def _run_items(self, opened: OpenedJob, admission: Admission, tally: Tally) -> None:
        sources = opened.plan.workers_of(opened.plan.path[0])
        while not admission.all_finished:
            for item in admission.admit():
                admitted = ItemAdmitted(**ME, item=item, attempt=0, failed="")
                self._fleet.send(sources[item % len(sources)], admitted)
            match message := self._fleet.receive():
                case ItemWritten(failed=""):
                    tally.wrote(message)
                case ItemWritten():
                    raise self._reason_of(message)
                case ItemsDurable():
                    tally.durable(message)
                    admission.finish(one.item for one in message.items)
                    logger.debug("durable items=%s", [one.item for one in message.items])
                case ItemFailed():
                    raise _stage_failed(message)
                case _:
                    raise AssertionError(f"not while items run: {message}")

    def _reason_of(self, written: ItemWritten) -> StageFailed:
        """Return why an item failed that the sink has seen marked: the failing worker tells too."""
        deadline = time.monotonic() + LATE_S
        while message := self._fleet.receive(deadline=deadline):
            if isinstance(message, ItemFailed) and message.item == written.item:
                return _stage_failed(message)
        stage, _, error = written.failed.partition(": ")
        return StageFailed(written.sender, stage, written.item, error)

    def _lost_items(self, dead: str, admission: Admission, tally: Tally) -> list[int]:
        """Return admitted - finished - held by the living: what went with a dead or hung worker.

        Who does not answer holds nothing: in doubt, an item is lost.
        """
        living = [name for name in self._fleet.workers if name != dead]
        self._fleet.bury(dead)
        for name in living:
            died = PeerDied(**ME, worker=dead, dead=0)
            self._fleet.send_pulse(name, died)
        held: set[int] = set()
        deadline = time.monotonic() + HELD_S
        try:
            while living and (message := self._fleet.receive(deadline=deadline)):
                if isinstance(message, Held):
                    living.remove(message.sender)
                    held.update(one.item for one in message.items)
                elif isinstance(message, ItemsDurable):
                    tally.durable(message)
                    admission.finish(one.item for one in message.items)
        except (WorkerDied, WorkerHung, StageFailed) as error:
            logger.warning("while asking who holds what: %s", error)
        return [item for item in admission.unfinished() if item not in held]


def _stage_failed(message: ItemFailed) -> StageFailed:
    return StageFailed(
        message.sender, message.stage, message.item, message.error, message.traceback
    )
