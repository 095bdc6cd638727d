"""The pools of one job: those in host memory made here, those on GPUs by their owners."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack

from ipc.errors import NoMemory
from ipc.host import HostPool
from ipc.records import PoolAddress
from ipc.setup_messages import MakePool
from runtime.crew import ME, Crew
from runtime.errors import PlanError
from runtime.host import ROOT, usable_memory
from runtime.plan import Plan
from runtime.plan_pools import PoolPlan
from runtime.reach import ask_for_pools
from runtime.worker_plan import WorkerPlan


def make_pools(plan: Plan, names: Mapping[str, str]) -> dict[str, HostPool]:
    """Make all pools of a job that lie in host memory, and return them by owner.

    Args:
        plan: of the job.
        names: owner -> name of its pool.

    Raises:
        PlanError: the memory is not there any more: past what is free the OOM killer comes.
    """
    free = usable_memory(ROOT)
    if plan.pool_bytes > free:
        raise PlanError(
            f"the pools need {plan.pool_bytes / 2**30:.1f} GiB of shared memory, "
            f"and {free / 2**30:.1f} GiB are left"
        )
    with ExitStack() as stack:  # if one cannot be made, the others are given up
        made = {}
        for pool in plan.pools:
            if pool.gpu is None:
                made[pool.owner] = make_pool(pool, names[pool.owner])
                stack.callback(made[pool.owner].close)
        stack.pop_all()
    return made


def make_pool(pool: PoolPlan, name: str) -> HostPool:
    """Make one pool in host memory.

    Raises:
        PlanError: the memory is not there.
    """
    try:
        return HostPool(
            name, owner=pool.owner, num_slots=pool.num_slots, slot_bytes=pool.slot_bytes
        )
    except NoMemory as error:
        raise PlanError(str(error)) from error


def make_gpu_pools(plan: Plan, names: Mapping[str, str], crew: Crew) -> dict[str, PoolAddress]:
    """Have all GPU workers make their pools, and return the addresses by owner.

    A worker that needs none gives its old one up.

    Raises:
        PlanError: a GPU refused the memory, or its driver hangs.
    """
    needed = {pool.owner: pool for pool in plan.pools if pool.gpu is not None}
    questions = {}
    for worker in plan.workers:
        if worker.gpu is not None:
            pool = needed.get(worker.name)
            questions[worker.name] = MakePool(
                **ME,
                pool=names[worker.name],
                num_slots=pool.num_slots if pool else 0,
                slot_bytes=pool.slot_bytes if pool else 0,
            )
    if not questions:
        return {}
    addresses: dict[str, PoolAddress] = {}
    for owner, made in ask_for_pools(crew, questions).items():
        if made.error and owner in needed:
            raise PlanError(f"{owner}: no pool on {needed[owner].memory}: {made.error}")
        for address in made.address:
            addresses[owner] = address
    return addresses


def give_up_gpu_pools(workers: Sequence[WorkerPlan], crew: Crew) -> None:
    """Have all GPU workers give their pools up; nobody has one open any more.

    Raises:
        PlanError: a GPU does not take one back, or its driver hangs.
    """
    none = MakePool(**ME, pool="", num_slots=0, slot_bytes=0)
    questions = {worker.name: none for worker in workers if worker.gpu is not None}
    for owner, made in ask_for_pools(crew, questions).items():
        if made.error:
            raise PlanError(f"{owner}: its pool cannot be given up: {made.error}")
