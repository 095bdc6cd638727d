"""A plan as people read it (`--dry-run`)."""

from __future__ import annotations

from collections.abc import Mapping

from runtime.cli_table import nbytes_text, table
from runtime.plan import Plan
from runtime.plan_pools import LinkPlan
from runtime.setup import OpenedJob
from runtime.transports import LOCAL


def describe_plans(plans: Mapping[str, OpenedJob]) -> str:
    """Return the plans of all sections of a pipeline, under their names."""
    told = [f"section {name}\n" * bool(name) + describe_plan(one) for name, one in plans.items()]
    return "\n\n".join(told)


def describe_plan(opened: OpenedJob) -> str:
    """Return workers, pools and links of a job, one line each."""
    plan = opened.plan
    head = (
        f"{opened.num_units} {opened.unit} in {plan.num_items} items of up to {opened.item_size}; "
        f"at most {plan.window} items under way"
    )
    parts = [_workers(plan), _pools(plan), _memory(plan), _links(opened)]
    lines = [head, *(line for part in parts for line in ["", *part])]
    remarks = [*plan.warnings, *([opened.broken] if opened.broken else [])]
    return "\n".join(lines + [f"warning: {remark}" for remark in remarks])


def _workers(plan: Plan) -> list[str]:
    rows = [
        f"{worker.name:24} {worker.shown_device:8} {worker.threads:>7}  {', '.join(worker.stages)}"
        for worker in plan.workers
    ]
    return [f"{'worker':24} {'device':8} {'threads':>7}  stages", *rows]


def _pools(plan: Plan) -> list[str]:
    rows = [
        f"{pool.owner:24} {pool.memory:8} {pool.num_slots:>7} {_mib(pool.slot_bytes):>12} "
        f"{_mib(pool.nbytes):>12}  {', '.join(place.name for place in pool.places)}"
        for pool in plan.pools
    ]
    head = f"{'pool of':24} {'memory':8} {'slots':>7} {'a slot':>12} {'in all':>12}  tensors"
    totals = [
        f"{'in all':24} {device.device:8} {'':7} {'':12} {_mib(device.pool_bytes):>12}"
        for device in plan.memory
        if device.pool_bytes
    ]
    return [head, *rows, *totals]


def _memory(plan: Plan) -> list[str]:
    rows = [
        [
            device.device,
            nbytes_text(device.pool_bytes),
            nbytes_text(device.weights_bytes),
            nbytes_text(device.staging_bytes),
            nbytes_text(device.work_bytes),
            nbytes_text(device.context_bytes),
            nbytes_text(device.needed_bytes),
            nbytes_text(device.free_bytes),
        ]
        for device in plan.memory
    ]
    head = "memory of,pools,weights,staging,to compute,CUDA itself,in all,free"
    return table(head.split(","), rows, right=head.partition("memory of,")[2])


def _links(opened: OpenedJob) -> list[str]:
    rows = [
        f"{link.sender:24} -> {link.receiver:24} {link.transport}{_doubt(link, opened)}"
        for link in opened.plan.links
    ]
    return [f"{'link':52} transport", *rows]


def _doubt(link: LinkPlan, opened: OpenedJob) -> str:
    is_untried = (link.sender, link.receiver) in opened.untried
    return ", to be tried" if is_untried and link.transport != LOCAL else ""


def _mib(nbytes: int) -> str:
    return f"{nbytes / 2**20:.2f} MiB"
