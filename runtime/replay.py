"""What a death has cost: which items are lost, and which the living hold. Pure functions."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from ipc.records import DeadWorker, ItemAttempt, ItemPlace
from ipc.replay_messages import FreeItems
from runtime.crew import ME
from runtime.ledger import HERE
from runtime.plan import Plan
from runtime.plan_pools import PoolPlan
from runtime.under_way import Noted

Claims = Mapping[str, Iterable[ItemPlace]]  # who says so -> how far items have come there


@dataclass(frozen=True, slots=True)
class Toll:
    """What became of the items that were under way when a worker died."""

    lost: tuple[int, ...]
    held: Mapping[int, int]  # item -> position of the stage that has it, or gets it next


@dataclass(frozen=True, slots=True)
class Dead:
    """A worker that was buried just now."""

    worker: str
    incarnation: int
    error: Exception
    ran: tuple[Noted, ...]

    @property
    def record(self) -> DeadWorker:
        """As the living are told."""
        return DeadWorker(worker=self.worker, incarnation=self.incarnation)


@dataclass(slots=True)
class Dropping:
    """Lost items whose older attempts the living have been told to drop."""

    waiting: set[str]  # who has not answered
    items: tuple[ItemAttempt, ...]
    held: tuple[ItemPlace, ...]
    stages: tuple[str, ...]  # of the dead
    gone: tuple[PoolPlan, ...]  # of the dead: to be closed before the answer

    def free(self, oldest: int, finished: tuple[int, ...]) -> FreeItems:
        """Return what owners are told when all have answered.

        Args:
            oldest: item that is not finished.
            finished: items after that one.
        """
        return FreeItems(
            **ME,
            items=self.items,
            passed=self.held,
            stages=self.stages,
            oldest=oldest,
            finished=finished,
        )


class AnotherLost(Exception):
    """Another worker that is there cannot go on."""

    def __init__(self, worker: str, error: Exception) -> None:
        self.worker, self.error = worker, error
        super().__init__(str(error))


def take_stock(
    under_way: Mapping[int, int],
    claims: Claims,
    living: set[str],
    plan: Plan,
    gone: Sequence[PoolPlan],
) -> Toll:
    """Return what is lost and what is held.

    Of all that is said of an item the furthest is true: those before it may not have heard yet
    that it went on. Who does not answer holds nothing: in doubt, an item is lost. Others may say
    that they have sent it there, but it may have gone on to the dead.

    Args:
        under_way: item -> attempt that counts; admitted and not finished.
        claims: of the living, and of the supervisor, which sent items to the source.
        living: the workers that have answered.
        plan: of the job.
        gone: pools that are no more.
    """
    furthest = _furthest(under_way, claims)
    held = {
        item: position
        for item, (position, _is_here, worker) in furthest.items()
        if worker in living and not any(needs(plan, position, pool) for pool in gone)
    }
    return Toll(lost=tuple(sorted(under_way.keys() - held)), held=held)


def _furthest(under_way: Mapping[int, int], claims: Claims) -> dict[int, tuple[int, bool, str]]:
    furthest: dict[int, tuple[int, bool, str]] = {}
    for sender, places in claims.items():
        for place in places:
            if under_way.get(place.item) != place.attempt:
                continue
            is_here = place.worker == HERE  # comes after having been sent there
            claim = (place.position, is_here, sender if is_here else place.worker)
            if place.item not in furthest or claim[:2] > furthest[place.item][:2]:
                furthest[place.item] = claim
    return furthest


def needs(plan: Plan, position: int, pool: PoolPlan) -> bool:
    """Whether an item that the stage at `position` has or gets needs what it has in `pool`."""
    stages = set(plan.path[position:])
    written = set(plan.path[:position])
    owner = next(worker for worker in plan.workers if worker.name == pool.owner)
    return bool(written & set(owner.stages)) and any(
        stages & set(place.readers) for place in pool.places
    )


def places_of(held: Mapping[int, int], attempt: Callable[[int], int]) -> tuple[ItemPlace, ...]:
    """Return item -> position as the owners of slots are told it."""
    return tuple(
        ItemPlace(item=item, attempt=attempt(item), position=position, worker=HERE)
        for item, position in held.items()
    )


def runs_of(items: Sequence[int]) -> tuple[tuple[int, int], ...]:
    """Return first and last + 1 of each run of neighbours; `items` are in order."""
    runs: list[tuple[int, int]] = []
    for item in items:
        if runs and runs[-1][1] == item:
            runs[-1] = (runs[-1][0], item + 1)
        else:
            runs.append((item, item + 1))
    return tuple(runs)


def merged(runs: Iterable[tuple[int, int]]) -> tuple[tuple[int, int], ...]:
    """Return the same items as runs in order that do not touch each other."""
    whole: list[tuple[int, int]] = []
    for start, end in sorted(runs):
        if whole and start <= whole[-1][1]:
            whole[-1] = (whole[-1][0], max(end, whole[-1][1]))
        elif start < end:
            whole.append((start, end))
    return tuple(whole)
