"""Run the items of a job through worker processes: admit, hear what is durable, join, close."""

from __future__ import annotations

import logging
import time
from collections.abc import Collection
from contextlib import ExitStack, suppress

from msgspec.structs import replace

from ipc.messages import (
    AnyMessage,
    Heartbeat,
    Held,
    ItemAdmitted,
    ItemFailed,
    ItemsDurable,
    ItemWritten,
    PeerDied,
)
from ipc.records import JobUsage, Peer, PoolAddress
from ipc.setup_messages import CloseJob, Finish, Finished, JobClosed, JobOpened, OpenJob
from runtime.account import stage_failed, warn_of_failure
from runtime.admission import Admission
from runtime.config import PipelineConfig
from runtime.crew import ME
from runtime.errors import RunpipeError, StageFailed, WorkerDied, WorkerHung
from runtime.fleet import Fleet
from runtime.plan import Plan
from runtime.pools import make_gpu_pools, make_pools
from runtime.run_trace import RunTrace
from runtime.setup import OpenedJob
from runtime.tally import Tally

logger = logging.getLogger(__name__)

LATE_S = 2.0  # how much later a message may come than one that it was sent before
BEAT_S = 0.5  # how long a run that ends waits for the last counts
HELD_S = 2.0  # how long the living may take to say what they hold; their small threads answer


class Supervisor:
    """Policy over a fleet. Belongs to one thread at a time."""

    def __init__(self, config: PipelineConfig, fleet: Fleet) -> None:
        self._config, self._fleet = config, fleet
        self._num_jobs = 0
        self._job = 0  # of this run, once it is open
        self._closed: dict[str, JobClosed] = {}
        self._is_draining = False

    def pids(self) -> dict[str, int]:
        """Return the process of each worker."""
        return self._fleet.pids()

    def begin(self) -> None:
        """A run begins: what earlier ones have cost is no part of it."""
        self._job, self._closed, self._is_draining = 0, {}, False

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
        mine = (0, self._job) if self._job else ()  # one that had no job yet has not begun here
        return {name: usage for name, usage in told.items() if usage.job in mine}

    def drain(self) -> None:
        """Admit nothing more but the rest of segments that have begun; from any thread."""
        self._is_draining = True

    def run(
        self, opened: OpenedJob, tally: Tally, trace: RunTrace, durable: Collection[int] = ()
    ) -> list[str]:
        """Run all items but the durable ones; return what the sink warns of.

        Failed items are in `tally`.

        Raises:
            StageFailed: the sink raised.
            WorkerDied, WorkerHung: a worker is gone; `items` are those that went with it.
            KeyboardInterrupt: all that was admitted is durable, and more was not to be.
        """
        plan = opened.plan
        admission = Admission(num_items=plan.num_items, window=plan.window, durable=durable)
        with ExitStack() as pools:
            with trace.step("open job"):
                self._open_job(opened, pools, trace, tuple(durable))
            tally.start(unit=opened.unit, num_units=opened.num_units, num_items=plan.num_items)
            try:
                with trace.step("items"):
                    self._run_items(opened, admission, tally)
            except WorkerDied as error:
                lost = self._lost_items(error.worker, plan, admission, tally)
                raise WorkerDied(error.worker, error.how, lost, error.log) from None
            except WorkerHung as error:
                lost = self._lost_items(error.worker, plan, admission, tally)
                raise WorkerHung(
                    error.worker, error.what, waited_s=error.waited_s, items=lost
                ) from None
            except (StageFailed, KeyboardInterrupt):
                self._hear_last_beats()
                raise
            warnings: tuple[str, ...] = ()
            if tally.items_failed < plan.num_items:
                sink = plan.workers_of(plan.path[-1])[0]
                finish = Finish(**ME, items=tuple(range(plan.num_items)))
                with trace.step("finish"):
                    warnings = self._fleet.ask(Finished, {sink: finish})[sink].warnings
            workers = [worker.name for worker in plan.workers]
            with trace.step("close job"):
                self._closed = self._fleet.ask(JobClosed, dict.fromkeys(workers, CloseJob(**ME)))
        return list(warnings)

    def _open_job(
        self, opened: OpenedJob, pools: ExitStack, trace: RunTrace, durable: tuple[int, ...]
    ) -> None:
        """Make the pools, and tell everyone of them and of each other."""
        self._num_jobs += 1
        self._job = self._num_jobs
        plan = opened.plan
        addresses = self._make_pools(plan, pools)
        traces = trace.open(
            {name: f"{self._pool_name(name)}.trace" for name in self._fleet.workers}
        )
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
        places = {(pool.owner, bool(pool.gpu)): pool.places for pool in plan.pools}
        questions = {}
        for worker in plan.workers:
            mine = [(pool.owner, bool(pool.gpu)) for pool in plan.pools_of(worker.name)]
            questions[worker.name] = OpenJob(
                **ME,
                job=self._job,
                facts=opened.facts,
                path=plan.path,
                pools=tuple(addresses[pool] for pool in mine),
                owners={address.name: owner for (owner, _on_gpu), address in addresses.items()},
                places={addresses[pool].name: places[pool] for pool in mine},
                peers=peers,
                round_robin=round_robin,
                items_per_segment=plan.items_per_segment,
                num_items=plan.num_items,
                durable=durable,
                trace=traces[worker.name],
            )
        self._fleet.ask(JobOpened, questions)

    def _make_pools(self, plan: Plan, stack: ExitStack) -> dict[tuple[str, bool], PoolAddress]:
        """Return the address of each pool, by owner and whether it lies on a GPU."""
        names = {name: self._pool_name(name) for name in self._fleet.workers}
        on_host = make_pools(plan, {name: f"{n}@host" for name, n in names.items()}, stack)
        on_gpu = make_gpu_pools(plan, {name: f"{n}@cuda" for name, n in names.items()}, self._fleet)
        found = {(owner, False): address for owner, address in on_host.items()}
        return found | {(owner, True): address for owner, address in on_gpu.items()}

    def _pool_name(self, worker: str) -> str:
        return f"{worker}.{self._fleet.workers[worker].incarnation}#{self._num_jobs}"

    def _run_items(self, opened: OpenedJob, admission: Admission, tally: Tally) -> None:
        sources = opened.plan.workers_of(opened.plan.path[0])
        while not admission.all_finished:
            if self._is_draining:
                admission.end_with_segment(opened.plan.items_per_segment)
            for item in admission.admit():
                admitted = ItemAdmitted(**ME, item=item, attempt=0, failed="")
                self._fleet.send(sources[item % len(sources)], admitted)
            message = self._fleet.receive()
            assert message is not None, "no deadline was given"
            self._hear(message, opened.plan, admission, tally)
        deadline = time.monotonic() + LATE_S
        while not tally.all_told and (late := self._fleet.receive(deadline=deadline)):
            self._hear(late, opened.plan, admission, tally)
        tally.explain_rest()
        if tally.items_durable < opened.plan.num_items:
            raise KeyboardInterrupt

    def _hear(self, message: AnyMessage, plan: Plan, admission: Admission, tally: Tally) -> None:
        match message:
            case ItemWritten():
                tally.wrote(message)
            case ItemsDurable():
                tally.durable(message)
                admission.finish(one.item for one in message.items)
                logger.debug("durable items=%s", [one.item for one in message.items])
            case ItemFailed() if message.stage == plan.path[-1]:
                raise stage_failed(message)  # its place in the output stays open
            case ItemFailed():
                tally.failed(message)
                warn_of_failure(stage_failed(message), tally)
            case _:
                raise AssertionError(f"not while items run: {message}")

    def _hear_last_beats(self) -> None:
        """Ask everyone for a heartbeat: the run is about to end, and its report wants the counts.

        Each beats before it answers who holds what of nobody.
        """
        waiting = set(self._fleet.workers)
        for name in waiting:
            self._fleet.send_pulse(name, PeerDied(**ME, worker="", dead=-1))
        deadline = time.monotonic() + BEAT_S
        with suppress(RunpipeError):
            while waiting and (message := self._fleet.receive(deadline=deadline)):
                if isinstance(message, Held):
                    waiting.discard(message.sender)

    def _lost_items(self, dead: str, plan: Plan, admission: Admission, tally: Tally) -> list[int]:
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
                elif isinstance(message, ItemWritten | ItemsDurable | ItemFailed):
                    self._hear(message, plan, admission, tally)
        except RunpipeError as error:
            logger.warning("while asking who holds what: %s", error)
        tally.explain_rest()
        return [item for item in admission.unfinished() if item not in held]
