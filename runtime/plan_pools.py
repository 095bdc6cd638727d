"""Where the tensors of a plan lie, and how they get to their readers. Pure functions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from math import prod

from ipc.host import align
from ipc.records import StageDescription, StageTensor, TensorPlace
from runtime.host import Gpu
from runtime.plan_reach import Reach, is_on_gpu, obstacles, reading_stages
from runtime.transports import HOST, LOCAL
from runtime.worker_plan import WorkerPlan
from stages.base import ITEM_BYTES

SLOTS_A_WORKER = 3  # as many runs as a GPU worker has under way


@dataclass(frozen=True, slots=True)
class PoolPlan:
    """The slots of one worker in one kind of memory: what lies in each, and who reads it."""

    owner: str
    gpu: Gpu | None  # None: in host memory
    num_slots: int
    slot_bytes: int
    places: tuple[TensorPlace, ...]

    @property
    def nbytes(self) -> int:
        """Size of the whole pool."""
        return self.num_slots * self.slot_bytes

    @property
    def memory(self) -> str:
        """Where it lies, as people name it."""
        return f"cuda:{self.gpu.index}" if self.gpu else "host"

    def is_read_by(self, worker: WorkerPlan, owner: WorkerPlan, sink: str) -> bool:
        """Whether `worker` takes tensors from here, the pool of `owner`."""
        stages = reading_stages(worker, owner, sink)
        return any(stages & set(place.readers) for place in self.places)


@dataclass(frozen=True, slots=True)
class LinkPlan:
    """Who may send items to whom, and how the sender's tensors get there."""

    sender: str
    receiver: str
    transport: str


def plan_pools(
    workers: Sequence[WorkerPlan],
    stages: Mapping[str, StageDescription],
    tensors: Sequence[StageTensor],
    reach: Reach,
    *,
    num_slots: int,
) -> tuple[PoolPlan, ...]:
    """Return the pools of all workers: one in host memory, one on the worker's GPU, or both.

    A tensor lies on the GPU of its writer if all its readers can read it there.
    """
    pools = []
    for owner in workers:
        written = [tensor for tensor in tensors if tensor.stage in owner.stages]
        on_gpu = _kept_on_gpu(owner, written, workers, stages, reach)
        for gpu in (None, owner.gpu) if owner.gpu else (None,):
            kept = [tensor for tensor in written if (tensor.name in on_gpu) == bool(gpu)]
            if kept:
                places, slot_bytes = _places(kept, stages)
                pool = PoolPlan(owner.name, gpu, num_slots, slot_bytes, places)
                pools.append(replace(pool, num_slots=_num_slots(pool, owner, workers, stages)))
    return tuple(pools)


def _num_slots(
    pool: PoolPlan,
    owner: WorkerPlan,
    workers: Sequence[WorkerPlan],
    stages: Mapping[str, StageDescription],
) -> int:
    """Return how many slots a pool is to have, at most those that it has.

    One for each item of the admission window, as a sink takes items in order, and may hold many
    until an earlier one comes. Stages take them as they come, and let go of them whatever happens
    later; so what only stages read, and lies in a GPU's memory, has as many slots as keep all who
    touch it busy. Its owner begins no item before one is free, and finishes those that it has.
    """
    sink = list(stages)[-1]
    if pool.gpu is None or any(sink in place.readers for place in pool.places):
        return pool.num_slots
    others = sum(w != owner and pool.is_read_by(w, owner, sink) for w in workers)
    return min(pool.num_slots, SLOTS_A_WORKER * (1 + others) + 1)


def _kept_on_gpu(
    owner: WorkerPlan,
    written: Sequence[StageTensor],
    workers: Sequence[WorkerPlan],
    stages: Mapping[str, StageDescription],
    reach: Reach,
) -> set[str]:
    """Return which of the tensors that `owner` writes lie on its GPU.

    One that no stage reads lies with the others: it is worth no pool of its own.
    """
    if owner.gpu is None:
        return set()
    computed = [tensor for tensor in written if is_on_gpu(tensor, stages)]
    read = {name for stage in stages.values() for name in stage.reads}
    kept = {
        tensor.name
        for tensor in computed
        if tensor.name in read and not obstacles(tensor, owner, workers, stages, reach)
    }
    return kept | ({tensor.name for tensor in computed} - read if kept else set())


def pools_of(
    worker: WorkerPlan, workers: Sequence[WorkerPlan], pools: Sequence[PoolPlan], sink: str
) -> list[PoolPlan]:
    """Return the pools that `worker` writes or reads."""
    plans = {plan.name: plan for plan in workers}
    return [
        pool
        for pool in pools
        if pool.owner == worker.name or pool.is_read_by(worker, plans[pool.owner], sink)
    ]


def staging_bytes(
    worker: WorkerPlan, stages: Mapping[str, StageDescription], pools: Sequence[PoolPlan]
) -> int:
    """Return what a GPU worker's staging slots take: copies of what does not lie on its GPU.

    Args:
        worker: of the plan.
        stages: all of them.
        pools: those that it writes or reads.
    """
    slots = [
        {
            place.name: align(prod(place.shape) * ITEM_BYTES[place.dtype])
            for pool in pools
            for place in pool.places
            if pool.gpu != worker.gpu and place.name in {*stages[name].reads, *stages[name].writes}
        }
        for name in worker.stages
        if worker.gpu and stages[name].library == "torch"
    ]
    return SLOTS_A_WORKER * sum(nbytes for slot in slots for nbytes in slot.values())


def _places(
    tensors: Sequence[StageTensor], stages: Mapping[str, StageDescription]
) -> tuple[tuple[TensorPlace, ...], int]:
    """Return where each tensor lies in a slot, and the size of a slot."""
    places, offset = [], 0
    for tensor in tensors:
        readers = tuple(name for name, stage in stages.items() if tensor.name in stage.reads)
        places.append(
            TensorPlace(
                name=tensor.name,
                offset=offset,
                shape=tensor.shape,
                dtype=tensor.dtype,
                readers=readers,
            )
        )
        offset += align(prod(tensor.shape) * ITEM_BYTES[tensor.dtype])
    return tuple(places), offset


def plan_links(
    path: Sequence[str],
    workers: Sequence[WorkerPlan],
    pools: Sequence[PoolPlan],
    reach: Reach,
) -> tuple[LinkPlan, ...]:
    """Return who sends items to whom, in the order of the path."""
    links = []
    for stage, following in pairwise(path):
        senders = [worker for worker in workers if stage in worker.stages]
        receivers = [worker for worker in workers if following in worker.stages]
        if senders == receivers:  # grouped: an item stays where it is
            links += [LinkPlan(worker.name, worker.name, LOCAL) for worker in senders]
        else:
            links += [
                LinkPlan(s.name, r.name, _transport(s, r, pools, reach, path[-1]))
                for s in senders
                for r in receivers
            ]
    return tuple(dict.fromkeys(links))


def _transport(
    sender: WorkerPlan, receiver: WorkerPlan, pools: Sequence[PoolPlan], reach: Reach, sink: str
) -> str:
    """Return how the sender's tensors get to the receiver, the fastest way that one takes."""
    takes_from_gpu = any(
        pool.gpu and pool.owner == sender.name and pool.is_read_by(receiver, sender, sink)
        for pool in pools
    )
    return reach.transport(sender, receiver) if takes_from_gpu else HOST
