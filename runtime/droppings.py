"""Attempts of items that count no more: everybody drops them, then their slots are freed.

All who live are told (`DropItems`), and answer when nothing of them runs any more, and the pools
that died are closed. Then nobody can touch the slots of older attempts: their owners free them
(`FreeItems`), and what is lost may be admitted again.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

from ipc.records import ItemAttempt
from ipc.replay_messages import DropItems, ItemsDropped, UnmapPools
from runtime.admission import Admission
from runtime.crew import ME
from runtime.fleet import Fleet
from runtime.job_pools import JobPools
from runtime.plan import Plan
from runtime.plan_pools import PoolPlan
from runtime.replay import Dead, Dropping, places_of
from runtime.restarts import Restarts


class Droppings:
    """One job. Belongs to the supervisor's thread."""

    def __init__(
        self,
        fleet: Fleet,
        pools: JobPools,
        plan: Plan,
        admission: Admission,
        *,
        in_job: set[str],
        restarts: Restarts,
    ) -> None:
        """Begin with nothing to drop; the arguments are as in `Recovery`."""
        self._fleet, self._pools, self._plan, self._admission = fleet, pools, plan, admission
        self._in_job, self._restarts = in_job, restarts
        self._waiting: dict[int, Dropping] = {}
        self._asked = 0
        self._outdated: dict[int, int] = {}  # durable items -> an attempt that will never come

    def begin(
        self,
        dead: Collection[Dead],
        attempts: Mapping[int, int],
        held: Mapping[int, int],
        gone: Mapping[str, PoolPlan],
    ) -> None:
        """Have everybody drop what is lost with the dead.

        Args:
            dead: who was buried just now.
            attempts: of the lost items, those that are to come.
            held: item -> position, of the others.
            gone: pools of the dead, by name, that all have to close.
        """
        plans = [one for one in self._plan.workers if one.name in {d.worker for d in dead}]
        dropping = Dropping(
            waiting=set(self._in_job),
            items=_items(attempts),
            held=places_of(held, self._admission.attempt),
            stages=tuple(stage for plan in plans for stage in plan.stages),
            gone=tuple(gone.values()),
        )
        self._ask(dropping, dead, tuple(gone))

    def outdate(self, items: Iterable[ItemAttempt]) -> None:
        """Have everybody drop newer attempts of items that have become durable in older ones.

        The living hold no item that the sink had, but it may have had it without their knowing, as
        it died or was late to say so. What is still under way of the item nobody waits for.

        Args:
            items: as they are durable; not noted as finished yet.
        """
        under_way = self._admission.under_way()
        late = {
            one.item: under_way[one.item] + 1
            for one in items
            if one.attempt < under_way.get(one.item, one.attempt)
        }
        if not late:
            return
        oldest = self._admission.oldest - 2 * self._plan.window
        kept = {item: attempt for item, attempt in self._outdated.items() if item >= oldest}
        self._outdated = kept | late
        dropping = Dropping(set(self._in_job), _items(late), held=(), stages=(), gone=())
        self._ask(dropping, (), ())

    @property
    def outdated(self) -> tuple[ItemAttempt, ...]:
        """What somebody who opens the job now has to know of it: newer ones may still come."""
        return _items(self._outdated)

    @property
    def is_waiting(self) -> bool:
        """Whether anybody has not answered."""
        return bool(self._waiting)

    def _ask(self, dropping: Dropping, dead: Collection[Dead], pools: tuple[str, ...]) -> None:
        self._asked += 1
        self._waiting[self._asked] = dropping
        buried = tuple(one.record for one in dead)
        drop = DropItems(**ME, asked=self._asked, dead=buried, items=dropping.items, pools=pools)
        for worker in sorted(self._in_job):
            self._fleet.send(worker, drop)
        self._complete()

    def has_open(self, worker: str) -> bool:
        """Whether anybody may still have a pool open that `worker` had on a GPU and died with."""
        return any(
            pool.owner == worker and pool.gpu is not None and pool in self._plan.pools_of(reader)
            for dropping in self._waiting.values()
            for pool in dropping.gone
            for reader in dropping.waiting
        )

    def answered(self, message: ItemsDropped) -> None:
        """A worker has dropped what it was told to."""
        if dropping := self._waiting.get(message.asked):
            dropping.waiting.discard(message.sender)
        self._complete()

    def forget(self, worker: str) -> None:
        """A worker is dead: it answers nobody any more."""
        for dropping in self._waiting.values():
            dropping.waiting.discard(worker)

    def _complete(self) -> None:
        """Go on with items of which nothing older runs any more."""
        for asked, dropping in list(self._waiting.items()):
            if dropping.waiting:
                continue
            del self._waiting[asked]
            free = dropping.free(self._admission.oldest, self._admission.finished_ahead())
            for worker in sorted(self._in_job):
                self._fleet.send(worker, free)
            lost = [one.item for one in dropping.items]
            self._pools.finish(lost)
            self._admission.retry(lost)
        self.unmap()

    def unmap(self) -> None:
        """Have everyone close what the dead have left, if no item needs it any more."""
        if self._waiting or self._restarts.is_opening:
            return  # they may have been told to open it just now
        if unused := self._pools.close_unused():
            for worker in sorted(self._in_job):
                self._fleet.send(worker, UnmapPools(**ME, pools=unused))


def _items(attempts: Mapping[int, int]) -> tuple[ItemAttempt, ...]:
    return tuple(ItemAttempt(item=item, attempt=n) for item, n in sorted(attempts.items()))
