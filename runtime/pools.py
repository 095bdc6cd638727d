"""The host pools of one job, as their maker holds them."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack

from ipc.errors import NoMemory
from ipc.host import HostPool
from ipc.records import PoolAddress
from runtime.errors import PlanError
from runtime.host import ROOT, usable_memory
from runtime.plan import Plan


def make_pools(plan: Plan, names: Mapping[str, str], stack: ExitStack) -> dict[str, PoolAddress]:
    """Make all pools of a job, and return their addresses by owner.

    Args:
        plan: of the job.
        names: owner -> name of its pool.
        stack: gives the pools up when it is closed.

    Raises:
        PlanError: the memory is not there any more: past what is free the OOM killer comes.
    """
    free = usable_memory(ROOT)
    if plan.pool_bytes > free:
        raise PlanError(
            f"the pools need {plan.pool_bytes / 2**30:.1f} GiB of shared memory, "
            f"and {free / 2**30:.1f} GiB are left"
        )
    addresses = {}
    for pool in plan.pools:
        try:
            made = HostPool(
                names[pool.owner],
                owner=pool.owner,
                num_slots=pool.num_slots,
                slot_bytes=pool.slot_bytes,
            )
        except NoMemory as error:
            raise PlanError(str(error)) from error
        stack.callback(made.close)
        addresses[pool.owner] = made.address
    return addresses
