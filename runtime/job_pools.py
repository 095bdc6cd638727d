"""The memory of one open job as its supervisor has it: pools, who opens which, what is retired.

A pool belongs to one incarnation of a worker. When that is dead, its pool in host memory is kept
for the items that have something in it, until they are finished; a restarted worker gets a new one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

from msgspec.structs import replace

from ipc.errors import NoMemory
from ipc.host import HostPool
from ipc.records import PoolAddress, TensorPlace
from ipc.setup_messages import MakePool
from runtime.crew import ME
from runtime.errors import PlanError
from runtime.fleet import Fleet
from runtime.host import ROOT, usable_memory
from runtime.plan import Plan
from runtime.plan_pools import PoolPlan
from runtime.pools import make_gpu_pools, make_pool, make_pools
from runtime.replay import needs
from runtime.under_way import Noted, Notes

Key = tuple[str, bool]  # owner, whether it lies on a GPU
NOBODY = ""  # owner of a retired pool: its leases are no one's


@dataclass(slots=True)
class _Retired:
    """A pool in host memory whose owner is dead."""

    plan: PoolPlan
    address: PoolAddress
    items: set[int]  # that have something in it


@dataclass(frozen=True, slots=True)
class Opening:
    """What one worker opens."""

    pools: tuple[PoolAddress, ...]
    owners: dict[str, str]  # of these and of those that it only passes on
    places: dict[str, tuple[TensorPlace, ...]]


class JobPools:
    """Owns the host memory of a job, from its opening to its end."""

    def __init__(self, plan: Plan, fleet: Fleet, number: int) -> None:
        """Make nothing yet. `number`: of the job, for the names."""
        self._plan, self._fleet, self._number = plan, fleet, number
        self._plans: dict[Key, PoolPlan] = {(p.owner, p.gpu is not None): p for p in plan.pools}
        self._addresses: dict[Key, PoolAddress] = {}
        self._pools: dict[str, HostPool] = {}  # by name
        self._retired: dict[str, _Retired] = {}  # by name
        self._former: dict[str, str] = {}  # pools of the dead, closed or not -> worker
        self._notes: dict[str, Notes] = {}  # by worker
        self._exit = ExitStack()

    def name(self, worker: str, memory: str) -> str:
        """Return what a worker's pool is called, or its trace."""
        incarnation = self._fleet.workers[worker].incarnation
        return f"{worker}.{incarnation}#{self._number}{memory}"

    def make(self) -> None:
        """Make all pools of the job, those on GPUs by their owners.

        Raises:
            PlanError: the memory is not there.
        """
        workers = list(self._fleet.workers)
        on_host = make_pools(self._plan, {name: self.name(name, "@host") for name in workers})
        for pool in on_host.values():
            self._keep(pool)
        names = {name: self.name(name, "@cuda") for name in workers}
        for owner, address in make_gpu_pools(self._plan, names, self._fleet).items():
            self._addresses[owner, True] = address

    def _keep(self, pool: HostPool) -> None:
        self._exit.callback(pool.close)
        self._pools[pool.address.name] = pool
        self._addresses[pool.address.owner, False] = pool.address

    def note(self, worker: str) -> PoolAddress:
        """Make the memory where a worker notes what it runs.

        Raises:
            PlanError: the host has none.
        """
        try:
            notes = self._notes[worker] = Notes(worker)
        except NoMemory as error:
            raise PlanError(str(error)) from error
        self._exit.callback(notes.close)
        return notes.address

    # --- who opens what ---

    def opening(self, worker: str) -> Opening:
        """Return what a worker opens at its start, with what the dead have left.

        It is told whose all pools were, also of those that are closed: items name every tensor
        that they ever had, whether anybody reads it still or not.
        """
        mine = self._read_by(worker)
        pools = {self._addresses[key]: self._plans[key] for key in mine if key in self._addresses}
        pools |= {
            r.address: r.plan for r in self._retired.values() if (r.plan.owner, False) in mine
        }
        owners = {address.name: owner for (owner, _gpu), address in self._addresses.items()}
        return Opening(
            pools=tuple(pools),
            owners=owners | self._former,
            places={address.name: plan.places for address, plan in pools.items()},
        )

    def opening_of(self, owner: str, reader: str) -> Opening:
        """Return what `reader` opens of the pools of `owner`, who is back."""
        mine = self._read_by(reader)
        pools = {key: address for key, address in self._addresses.items() if key[0] == owner}
        return Opening(
            pools=tuple(address for key, address in pools.items() if key in mine),
            owners={address.name: owner for address in pools.values()},
            places={a.name: self._plans[key].places for key, a in pools.items() if key in mine},
        )

    def _read_by(self, worker: str) -> list[Key]:
        return [(pool.owner, pool.gpu is not None) for pool in self._plan.pools_of(worker)]

    # --- a death, and a return ---

    def noted(self, worker: str) -> tuple[Noted, ...]:
        """Return what a dead worker was at."""
        notes = self._notes.pop(worker, None)
        if notes is None:
            return ()
        with notes:
            return notes.read()

    def gone_with(self, worker: str) -> dict[str, PoolPlan]:
        """Return the pools that a dead worker takes along, by name: those on GPUs.

        And the one in host memory, if there is no room for a second one beside it.
        """
        return {
            address.name: self._plans[key]
            for key, address in self._addresses.items()
            if key[0] == worker and (key[1] or usable_memory(ROOT) < self._plans[key].nbytes)
        }

    def retire(self, worker: str, held: Mapping[int, int], gone: Iterable[str]) -> None:
        """Keep a dead worker's pool for those items that have something in it.

        Args:
            worker: who is dead.
            held: item -> position, of those that the living hold.
            gone: names of pools that are not kept.
        """
        on_gpu = self._addresses.pop((worker, True), None)
        address = self._addresses.pop((worker, False), None)
        self._former |= {each.name: worker for each in (on_gpu, address) if each is not None}
        if address is None:
            return
        plan = self._plans[worker, False]
        items = {item for item, position in held.items() if needs(self._plan, position, plan)}
        kept = items if address.name not in gone else set()
        self._retired[address.name] = _Retired(plan, replace(address, owner=NOBODY), kept)

    def finish(self, items: Iterable[int]) -> None:
        """Note that `items` are finished, or lost."""
        for retired in self._retired.values():
            retired.items.difference_update(items)

    def close_unused(self) -> tuple[str, ...]:
        """Close the retired pools that no item needs, and return which; all may close them.

        Not while anybody has been told to open one of them, and has not said that it has.
        """
        if not self._retired:
            return ()
        unused = tuple(name for name, retired in self._retired.items() if not retired.items)
        for name in unused:
            del self._retired[name]
            self._pools.pop(name).close()
        return unused

    def question(self, worker: str) -> MakePool | None:
        """Return what a restarted worker is asked for its pool on a GPU; None: it has none."""
        plan = self._plans.get((worker, True))
        if plan is None:
            return None
        name = self.name(worker, "@cuda")
        return MakePool(**ME, pool=name, num_slots=plan.num_slots, slot_bytes=plan.slot_bytes)

    def renew(self, worker: str, on_gpu: Sequence[PoolAddress]) -> None:
        """Give a restarted worker its pools.

        Args:
            worker: who is back.
            on_gpu: the one that it made there, if it has one.

        Raises:
            PlanError: the memory is not there.
        """
        for address in on_gpu:
            self._addresses[worker, True] = address
        if (plan := self._plans.get((worker, False))) is not None:
            self._keep(make_pool(plan, self.name(worker, "@host")))

    def close(self) -> None:
        """Give the memory up. Safe to call twice."""
        self._exit.close()
