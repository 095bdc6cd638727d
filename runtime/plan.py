"""The plan: workers, pools, window, transports. A pure function; printing it starts nothing.

Two steps, because the second needs what the workers say of their stages: `plan_workers` from the
configuration and the host, then `make_plan` from the reads, writes and shapes of the stages.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from ipc.records import StageDescription, StageMemory, StageTensor
from runtime.config import PipelineConfig
from runtime.errors import ConfigError, PlanError
from runtime.host import Gpu, Host
from runtime.plan_memory import DeviceMemory, check_memory, plan_memory, room_to_return
from runtime.plan_pools import (
    LinkPlan,
    PoolPlan,
    plan_links,
    plan_pools,
    pools_of,
    staging_bytes,
)
from runtime.plan_reach import Reach, fallbacks, require_cuda
from runtime.worker_plan import WorkerPlan
from stages.base import ITEM_BYTES


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything that is decided before the first item."""

    workers: tuple[WorkerPlan, ...]
    path: tuple[str, ...]
    window: int
    num_items: int
    items_per_segment: int
    pools: tuple[PoolPlan, ...]
    memory: tuple[DeviceMemory, ...]
    links: tuple[LinkPlan, ...]
    warnings: tuple[str, ...]  # `fallbacks` too
    fallbacks: tuple[str, ...]  # pairs of workers that take host memory since their GPUs must
    room: Mapping[str, int]  # GPU worker -> bytes that are free there before it loads once more

    @property
    def pool_bytes(self) -> int:
        """Shared host memory of all pools."""
        return sum(pool.nbytes for pool in self.pools if pool.gpu is None)

    @property
    def names(self) -> tuple[str, ...]:
        """The workers, by name."""
        return tuple(worker.name for worker in self.workers)

    def pools_of(self, worker: str) -> list[PoolPlan]:
        """Return the pools that `worker` writes or reads."""
        plan = next(plan for plan in self.workers if plan.name == worker)
        return pools_of(plan, self.workers, self.pools, self.path[-1])

    @property
    def joiner(self) -> str:
        """The worker that joins the output: the sink's first replica."""
        return self.workers_of(self.path[-1])[0]

    def workers_of(self, stage: str) -> list[str]:
        """Return the replicas of `stage`, in order."""
        return [worker.name for worker in self.workers if stage in worker.stages]


def plan_workers(config: PipelineConfig, host: Host) -> tuple[tuple[WorkerPlan, ...], list[str]]:
    """Return the workers, in data-flow order of their first stage, and what was bent to fit.

    Raises:
        PlanError: GPUs are asked for and there is none.
    """
    threads = _threads(config, host)
    warnings: list[str] = []
    workers = []
    for stages in _groups(config):
        stage = config.stages[stages[0]]
        gpus = _gpus(stage.gpus, stages, host, warnings)
        for replica, gpu in enumerate(gpus or [None] * stage.replicas):
            # What a GPU worker computes on the CPU is small, and threads that wait for more of it
            # would take the cores of the other workers.
            own = 1 if gpu and config.run.threads == "auto" else threads
            name = f"{'+'.join(stages)}/{replica}"
            modules, python = _modules(config, stages), stage.python or ""
            workers.append(WorkerPlan(name, stages, gpu, own, python=python, modules=modules))
    return tuple(workers), warnings


def _modules(config: PipelineConfig, stages: Sequence[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(config.stages[name].use.partition(":")[0] for name in stages))


def _groups(config: PipelineConfig) -> list[tuple[str, ...]]:
    """Return the stages of each worker, in the order of the path, whatever order a group is in."""
    order = list(config.stages)
    group_of = {
        name: tuple(sorted(group, key=order.index)) for group in config.groups for name in group
    }
    return list(dict.fromkeys(group_of.get(name, (name,)) for name in order))


def _gpus(
    wanted: Sequence[int], stages: Sequence[str], host: Host, warnings: list[str]
) -> list[Gpu]:
    """Return the GPU of each replica; those that there are take the part of those that are not.

    A GPU that has a replica gets no second one for that: two on one GPU take turns.
    """
    if wanted and not host.gpus:
        raise PlanError(
            f"stages.{stages[0]}.gpus: GPU {wanted[0]} is asked for and this host has none; "
            "take a CPU configuration such as demo.yaml"
        )
    taken = []
    for number in wanted:
        gpu = host.gpus[number % len(host.gpus)]
        if number >= len(host.gpus):
            is_taken = gpu in taken
            warnings.append(
                f"{'+'.join(stages)}: GPU {number} is asked for and this host has "
                f"{len(host.gpus)}; "
                + ("it is done without" if is_taken else f"GPU {gpu.index} takes its part")
            )
            if is_taken:
                continue
        taken.append(gpu)
    return taken


def _threads(config: PipelineConfig, host: Host) -> int:
    """Share the cores out among the CPU stages that compute: source and sink hardly do.

    Counted by stage, not by worker, so that grouping does not change a result's bytes.
    """
    if config.run.threads != "auto":
        return config.run.threads
    return max(1, host.cores // max(1, config.num_computing))


def make_plan(
    config: PipelineConfig,
    host: Host,
    workers: Sequence[WorkerPlan],
    descriptions: Iterable[StageDescription],
    tensors: Sequence[StageTensor],
    *,
    num_items: int,
    memory: Mapping[str, Sequence[StageMemory]],
    warnings: Iterable[str] = (),
    unreachable: Mapping[tuple[str, str], str] | None = None,
) -> Plan:
    """Return the whole plan of one job. `unreachable`: (owner, reader) -> why not.

    Raises:
        ConfigError: the stages do not fit together, or `run.window` is too small.
        PlanError: it does not fit into this host's memory, or a GPU's, or what is required of the
            transports cannot be had.
    """
    path, told = tuple(config.stages), {one.name: one for one in descriptions}
    stages = {name: told[name] for name in path}  # in this order, whoever told of them first
    check_path(path, stages, tensors)
    per_segment = stages[path[-1]].items_per_segment
    window = _window(config, workers, per_segment)
    reach = Reach(host, config.run.require, unreachable or {})
    fallen = fallbacks(workers, stages, tensors, reach)
    pools = plan_pools(workers, stages, tensors, reach, num_slots=min(window, num_items))
    staging = {
        worker.name: staging_bytes(worker, stages, pools_of(worker, workers, pools, path[-1]))
        for worker in workers
    }
    plan = Plan(
        workers=tuple(workers),
        path=path,
        window=window,
        num_items=num_items,
        items_per_segment=per_segment,
        pools=pools,
        memory=plan_memory(workers, memory, host, pools, staging),
        links=plan_links(path, workers, pools, reach),
        warnings=(*warnings, *fallen),
        fallbacks=fallen,
        room=room_to_return(workers, memory, pools, staging),
    )
    _check_links(plan, stages)
    if config.run.require == "cuda":
        require_cuda(workers, stages, tensors, reach)
    check_memory(config.pipeline, plan.memory, num_slots=min(window, num_items))
    return plan


def check_path(
    path: Sequence[str], stages: dict[str, StageDescription], tensors: Iterable[StageTensor] = ()
) -> None:
    """Check that the stages fit together.

    Raises:
        ConfigError: the order, a missing tensor, or one that two stages write.
    """
    written: dict[str, str] = {}
    for position, name in enumerate(path):
        kind = "source" if position == 0 else "sink" if position == len(path) - 1 else "stage"
        stage = stages[name]
        if stage.kind != kind:
            raise ConfigError(
                f"stages.{name}: is a {stage.kind}, but a {kind} is needed in place {position + 1}"
            )
        for tensor in stage.reads:
            if tensor not in written:
                raise ConfigError(f"stages.{name}: reads `{tensor}`, which no earlier stage writes")
        for tensor in stage.writes:
            if tensor in written:
                raise ConfigError(
                    f"stages.{name}: writes `{tensor}`, which {written[tensor]} writes already"
                )
            written[tensor] = name
    for item_tensor in tensors:
        if item_tensor.dtype not in ITEM_BYTES:
            raise ConfigError(
                f"stages.{item_tensor.stage}: `{item_tensor.name}` has dtype {item_tensor.dtype}; "
                f"known are {', '.join(ITEM_BYTES)}"
            )


def _window(config: PipelineConfig, workers: Sequence[WorkerPlan], per_segment: int) -> int:
    """Return how many items may be under way: W of the design.

    Each replica of the sink may sit on a whole segment but for its last item, and every worker
    wants one item to run and one that is ready when that is done.
    """
    sink = list(config.stages)[-1]
    replicas = config.stages[sink].num_replicas
    needed = per_segment * replicas + 2 * max(len(workers), len(config.stages))
    if config.run.window == "auto":
        return needed
    if config.run.window < needed:
        raise ConfigError(
            f"run.window: {config.run.window} items under way are too few; {needed} are needed "
            f"({replicas} segments of {per_segment} items, and two for each of "
            f"{max(len(workers), len(config.stages))} workers); say `auto`"
        )
    return config.run.window


def _check_links(plan: Plan, stages: dict[str, StageDescription]) -> None:
    """A sender learns from `SlotFreed` that an item is done with; so there must be one."""
    for stage, following in pairwise(plan.path):
        sender = next(worker for worker in plan.workers if stage in worker.stages)
        written = {tensor for name in sender.stages for tensor in stages[name].writes}
        if not written & set(stages[following].reads):
            raise ConfigError(
                f"stages.{following}: reads nothing that {sender.name.partition('/')[0]} writes; "
                "each stage must read something of the worker before it"
            )
