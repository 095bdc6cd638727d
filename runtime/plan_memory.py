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

    @property
    def needed_bytes(self) -> int:
        """All of it."""
        return self.pool_bytes + self.weights_bytes + self.work_bytes + self.context_bytes


def plan_memory(
    workers: Sequence[WorkerPlan],
    memory: Mapping[str, Sequence[StageMemory]],
    host: Host,
    pools: Sequence[PoolPlan],
) -> tuple[DeviceMemory, ...]:
    """Return what the host and each GPU that is used must have.

    Args:
        workers: of the plan.
        memory: what the stages of each worker say.
        host: this machine.
        pools: of all workers.
    """
    gpus = sorted({w.gpu for w in workers if w.gpu}, key=lambda gpu: gpu.index)
    on_host = _taken(None, workers, memory)
    return (
        DeviceMemory("host", _pool_bytes(pools, None), *on_host, 0, host.memory_bytes),
        *(_of_gpu(gpu, workers, memory, _pool_bytes(pools, gpu)) for gpu in gpus),
    )


def check_memory(pipeline: str, devices: Sequence[DeviceMemory], *, num_slots: int) -> None:
    """Refuse a plan that cannot fit.

    Host memory must hold everything. On a GPU weights and pools must fit; for the rest `prepare`
    takes smaller items.

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
        fixed = device.weights_bytes + device.context_bytes
        if fixed > device.free_bytes:
            raise PlanError(
                f"{pipeline}: the weights need {nbytes_text(fixed)} of {device.device}'s memory, "
                f"and {nbytes_text(device.free_bytes)} are free; use another GPU, or free this one"
            )
        if fixed + device.pool_bytes > device.free_bytes:
            raise PlanError(
                f"{pipeline}: weights and the pools of {num_slots} items under way need "
                f"{nbytes_text(fixed + device.pool_bytes)} of {device.device}'s memory, and "
                f"{nbytes_text(device.free_bytes)} are free; {_advice(device)}"
            )


def _advice(device: DeviceMemory) -> str:
    if device.weights_bytes > device.pool_bytes + device.work_bytes:
        return "use smaller weights, or a GPU"
    return "make items smaller, as `video.pairs` and `video.segment_windows` do for video"


def _pool_bytes(pools: Sequence[PoolPlan], gpu: Gpu | None) -> int:
    return sum(pool.nbytes for pool in pools if pool.gpu == gpu)


def _of_gpu(
    gpu: Gpu,
    workers: Sequence[WorkerPlan],
    memory: Mapping[str, Sequence[StageMemory]],
    pool_bytes: int,
) -> DeviceMemory:
    contexts = CONTEXT_BYTES * sum(worker.gpu == gpu for worker in workers)
    weights, work = _taken(gpu, workers, memory)
    return DeviceMemory(f"cuda:{gpu.index}", pool_bytes, weights, work, contexts, gpu.free_bytes)


def _taken(
    gpu: Gpu | None, workers: Sequence[WorkerPlan], memory: Mapping[str, Sequence[StageMemory]]
) -> tuple[int, int]:
    """Return weights and work: of the stages of one worker only one runs at a time."""
    here = [memory.get(worker.name, ()) for worker in workers if worker.gpu == gpu]
    weights = sum(stage.weights_bytes for stages in here for stage in stages)
    return weights, sum(max((s.work_bytes for s in stages), default=0) for stages in here)
