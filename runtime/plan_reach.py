"""By which way workers reach each other's tensors, and what keeps one off a GPU. Pure functions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from ipc.records import StageDescription, StageTensor
from runtime.config_types import Require
from runtime.errors import PlanError
from runtime.host import Host
from runtime.transports import COPY, HOST, LOCAL, VIEW
from runtime.worker_plan import WorkerPlan

Stages = Mapping[str, StageDescription]


@dataclass(frozen=True, slots=True)
class Obstacle:
    """What keeps a tensor off the GPU that writes it."""

    what: str
    why: str = ""
    is_meant: bool = False  # the pipeline says so; else it is this host that cannot


@dataclass(frozen=True, slots=True)
class Reach:
    """By which way one worker reads what another one has written."""

    host: Host
    require: Require = None
    failed: Mapping[tuple[str, str], str] = field(default_factory=dict)  # (owner, reader) -> why

    def transport(self, owner: WorkerPlan, reader: WorkerPlan) -> str:
        """Return how `reader` could read a tensor in the memory of the owner's GPU, if it has one.

        "host" means that it cannot, and that the tensor belongs into host memory.
        """
        if self.obstacle(owner, reader):
            return HOST
        if owner.name == reader.name:
            return LOCAL
        return VIEW if owner.gpu == reader.gpu else COPY

    def obstacle(self, owner: WorkerPlan, reader: WorkerPlan) -> Obstacle | None:
        """Return what keeps `reader` from reading a tensor on the owner's GPU, if anything."""
        no_pool = self.failed.get((owner.name, owner.name))
        if no_pool is not None:
            return Obstacle(f"{owner.name} cannot have a pool on its GPU", no_pool)
        if owner.name == reader.name:
            return None
        for worker in (owner, reader):
            if worker.gpu is None:
                return Obstacle(f"{worker.name} has no GPU", is_meant=True)
        if self.require == "host":
            return Obstacle("`run.require: host` asks for that", is_meant=True)
        why = self.failed.get((owner.name, reader.name), self._no_peers(owner, reader))
        if not why:
            return None
        return Obstacle(f"{reader.name} cannot read the GPU memory of {owner.name}", why)

    def _no_peers(self, owner: WorkerPlan, reader: WorkerPlan) -> str:
        assert owner.gpu is not None
        assert reader.gpu is not None
        if owner.gpu == reader.gpu or (reader.gpu.uuid, owner.gpu.uuid) in self.host.peers:
            return ""
        return f"NVIDIA's driver says that {reader.shown_device} is no peer of {owner.shown_device}"


def reading_stages(reader: WorkerPlan, owner: WorkerPlan, sink: str) -> set[str]:
    """Return the stages of `reader` that may get items of `owner`'s.

    An item stays with, or comes back to, the one of several like workers that has its tensors; but
    the sink's replicas share the items out by segments.
    """
    if reader.name == owner.name:
        return set(reader.stages)
    return set(reader.stages) - (set(owner.stages) - {sink})


def obstacles(
    tensor: StageTensor,
    owner: WorkerPlan,
    workers: Sequence[WorkerPlan],
    stages: Stages,
    reach: Reach,
) -> list[Obstacle]:
    """Return all that keeps a tensor of a stage on a GPU, in the worker `owner`, off that GPU."""
    sink, found = list(stages)[-1], []
    for name, stage in stages.items():
        if tensor.name not in stage.reads:
            continue
        if stage.library != "torch":
            found.append(Obstacle(f"{name} reads it as an array of {stage.library}", is_meant=True))
            continue
        for reader in workers:
            if name in reading_stages(reader, owner, sink):
                obstacle = reach.obstacle(owner, reader)
                found += [obstacle] if obstacle else []
    return list(dict.fromkeys(found))


def fallbacks(
    workers: Sequence[WorkerPlan], stages: Stages, tensors: Sequence[StageTensor], reach: Reach
) -> tuple[str, ...]:
    """Return a warning for each pair of workers that take host memory since their GPUs must."""
    told: dict[Obstacle, None] = {}
    for owner, tensor in _of_gpus(workers, stages, tensors):
        found = obstacles(tensor, owner, workers, stages, reach)
        if not any(one.is_meant for one in found):
            told |= dict.fromkeys(found)
    return tuple(f"{one.what}, and takes host memory: {one.why}" for one in told)


def require_cuda(
    workers: Sequence[WorkerPlan], stages: Stages, tensors: Sequence[StageTensor], reach: Reach
) -> None:
    """Refuse host memory for a tensor that a stage on a GPU writes and one on a GPU reads.

    Raises:
        PlanError: there is one.
    """
    on_gpu = {name for worker in workers if worker.gpu for name in worker.stages}
    for owner, tensor in _of_gpus(workers, stages, tensors):
        readers = [
            name
            for name, stage in stages.items()
            if tensor.name in stage.reads and stage.library == "torch" and name in on_gpu
        ]
        found = obstacles(tensor, owner, workers, stages, reach)
        if not readers or not found:
            continue
        why = "; ".join(
            f"it has to lie there, as {one.what}" if one.is_meant else f"{one.what}: {one.why}"
            for one in found
        )
        hint = "" if any(one.is_meant for one in found) else "; `runpipe doctor` shows what works"
        raise PlanError(
            f"run.require: `{tensor.name}` of {tensor.stage} ({owner.name}) gets to "
            f"{', '.join(readers)} through host memory, which `require: cuda` refuses: {why}{hint}"
        )


def _of_gpus(
    workers: Sequence[WorkerPlan], stages: Stages, tensors: Sequence[StageTensor]
) -> Iterator[tuple[WorkerPlan, StageTensor]]:
    """Yield what stages write that compute on a GPU, with the worker that does."""
    for owner in workers:
        for tensor in tensors:
            if owner.gpu and tensor.stage in owner.stages and is_on_gpu(tensor, stages):
                yield owner, tensor


def is_on_gpu(tensor: StageTensor, stages: Stages) -> bool:
    """Whether the stage that writes it does so on its worker's GPU, if that has one."""
    return stages[tensor.stage].library == "torch"
