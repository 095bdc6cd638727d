"""How much memory of each device a plan takes, and whether that is there. Pure functions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ipc.records import StageMemory
from runtime.cli_table import nbytes_text
from runtime.errors import PlanError
from runtime.host import Gpu, Host
from runtime.plan_pools import PoolPlan
from runtime.worker_plan import WorkerPlan

# About what CUDA takes of a GPU for each process, before any tensor.
CONTEXT_BYTES = 512 * 2**20


@dataclass(frozen=True, slots=True)
class DeviceMemory:
    """What all workers together take of one device, as far as their stages tell."""

    device: str  # "host", "cuda:0"
    pool_bytes: int
    weights_bytes: int
    work_bytes: int  # while items run
    context_bytes: int
    free_bytes: int
    staging_bytes: int = 0  # copies of what GPU workers read and write elsewhere
    pools: tuple[PoolPlan, ...] = ()  # that lie here

    @property
    def needed_bytes(self) -> int:
        """All of it."""
        return self.fixed_bytes + self.pool_bytes + self.staging_bytes + self.work_bytes

    @property
    def fixed_bytes(self) -> int:
        """What smaller items do not change."""
        return self.weights_bytes + self.context_bytes


def plan_memory(
    workers: Sequence[WorkerPlan],
    memory: Mapping[str, Sequence[StageMemory]],
    host: Host,
    pools: Sequence[PoolPlan],
    staging: Mapping[str, int] | None = None,
) -> tuple[DeviceMemory, ...]:
    """Return what the host and each GPU that is used must have.

    Args:
        workers: of the plan.
        memory: what the stages of each worker say.
        host: this machine.
        pools: of all workers.
        staging: bytes of each GPU worker's staging slots.
    """
    gpus = sorted({w.gpu for w in workers if w.gpu}, key=lambda gpu: gpu.index)
    return tuple(
        DeviceMemory(
            device=f"cuda:{gpu.index}" if gpu else "host",
            pool_bytes=sum(pool.nbytes for pool in pools if pool.gpu == gpu),
            weights_bytes=weights,
            work_bytes=work,
            context_bytes=CONTEXT_BYTES * sum(w.gpu == gpu for w in workers) if gpu else 0,
            free_bytes=gpu.free_bytes if gpu else host.memory_bytes,
            staging_bytes=sum((staging or {}).get(w.name, 0) for w in workers if w.gpu == gpu),
            pools=tuple(pool for pool in pools if pool.gpu == gpu),
        )
        for gpu in (None, *gpus)
        for weights, work in [_taken(gpu, workers, memory)]
    )


def room_to_return(
    workers: Sequence[WorkerPlan],
    memory: Mapping[str, Sequence[StageMemory]],
    pools: Sequence[PoolPlan],
    staging: Mapping[str, int],
) -> dict[str, int]:
    """Return how much of its GPU must be free before a GPU worker that died loads again.

    What it takes, but for CUDA itself, which it has open by then. What stages tell may be too
    much; so no more than was free at first beside what the other workers there take.
    """
    takes = {}
    for worker in workers:
        weights, work = _taken(worker.gpu, [worker], memory)
        mine = sum(pool.nbytes for pool in pools if pool.gpu and pool.owner == worker.name)
        takes[worker.name] = weights + work + mine + staging.get(worker.name, 0)
    room = {}
    for worker in workers:
        if worker.gpu is not None:
            here = [other for other in workers if other.gpu == worker.gpu]
            others = sum(takes[other.name] for other in here if other != worker)
            left = worker.gpu.free_bytes - others - len(here) * CONTEXT_BYTES
            room[worker.name] = max(0, min(takes[worker.name], left))
    return room


def check_memory(pipeline: str, devices: Sequence[DeviceMemory], *, num_slots: int) -> None:
    """Refuse a plan that cannot fit.

    Host memory must hold everything. On a GPU weights, pools and staging must fit; for the rest
    `prepare` takes smaller items.

    Raises:
        PlanError: with the numbers, and what to change.
    """
    for device in devices:
        if device.device == "host" and device.needed_bytes > device.free_bytes:
            raise PlanError(
                f"{pipeline}: {nbytes_text(device.needed_bytes)} of memory are needed "
                f"({nbytes_text(device.pool_bytes)} for the pools of {num_slots} items under way, "
                f"{nbytes_text(device.weights_bytes)} for weights, "
                f"{nbytes_text(device.work_bytes)} to compute), "
                f"and {nbytes_text(device.free_bytes)} are free; {_advice(device)}"
            )
        if device.device != "host":
            _check_gpu(pipeline, device)


def _check_gpu(pipeline: str, device: DeviceMemory) -> None:
    free = f"and {nbytes_text(device.free_bytes)} are free"
    if device.fixed_bytes > device.free_bytes:
        raise PlanError(
            f"{pipeline}: the weights need {nbytes_text(device.fixed_bytes)} of {device.device}'s "
            f"memory, {free}; use another GPU, or free this one"
        )
    needed = device.fixed_bytes + device.pool_bytes + device.staging_bytes
    if needed > device.free_bytes:
        lies = [f"{nbytes_text(device.fixed_bytes)} for weights and CUDA itself"]
        lies += [
            f"{nbytes_text(pool.nbytes)} for {pool.num_slots} slots of {pool.owner} with "
            + ", ".join(place.name for place in pool.places)
            for pool in device.pools
        ]
        lies.append(f"{nbytes_text(device.staging_bytes)} for copies in and out")
        raise PlanError(
            f"{pipeline}: {nbytes_text(needed)} of {device.device}'s memory are needed before "
            f"anything is computed ({'; '.join(lies)}), {free}; "
            "make items smaller, as `video.pairs` does for video"
        )


def _advice(device: DeviceMemory) -> str:
    if device.weights_bytes > device.pool_bytes + device.work_bytes:
        return "use smaller weights, or a GPU"
    return "make items smaller, as `video.pairs` and `video.segment_windows` do for video"


def _taken(
    gpu: Gpu | None, workers: Sequence[WorkerPlan], memory: Mapping[str, Sequence[StageMemory]]
) -> tuple[int, int]:
    """Return weights and work: of the stages of one worker only one runs at a time."""
    here = [memory.get(worker.name, ()) for worker in workers if worker.gpu == gpu]
    weights = sum(stage.weights_bytes for stages in here for stage in stages)
    return weights, sum(max((s.work_bytes for s in stages), default=0) for stages in here)
