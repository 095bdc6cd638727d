"""The pools of one job in one worker: its own, to write, and those of others, to read."""

from __future__ import annotations

import gc
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import ExitStack
from math import prod
from typing import TYPE_CHECKING

from ipc.host import MappedPool
from ipc.pool import SlotPool
from ipc.records import PoolAddress, TensorHandle, TensorPlace
from runtime.transports import COPY, HOST, LOCAL, VIEW
from runtime.views import Views
from stages.base import ITEM_BYTES, Library, TensorSpec

if TYPE_CHECKING:  # a worker without a GPU imports nothing of it
    from runtime.gpu_memory import GpuPools


class JobMemory:
    """Opened once per job; gives views of slots, and keeps the leases of its own pools."""

    def __init__(
        self,
        worker: str,
        pools: Sequence[PoolAddress],
        owners: Mapping[str, str],
        places: Mapping[str, Sequence[TensorPlace]],
        libraries: set[Library],
        gpu: GpuPools | None = None,
    ) -> None:
        """Open the pools.

        Args:
            worker: who opens them.
            pools: those that it writes or reads; of the dead those that name no owner.
            owners: pool -> worker, of all pools.
            places: pool -> what lies in its slots, of `pools`.
            libraries: whose views the stages want.
            gpu: opens those that lie on GPUs, and makes the others fit for copies; None: the
                stages see to copies themselves.
        """
        self._worker, self._owners, self._gpu = worker, owners, gpu
        self._places = places
        self._where = {  # own tensors: which pool, and where in its slots
            place.name: (pool.name, place)
            for pool in pools
            if pool.owner == worker
            for place in places[pool.name]
        }
        self._slots = {
            pool.name: SlotPool(pool.name, num_slots=pool.num_slots)
            for pool in pools
            if pool.owner == worker
        }
        self._addresses = {pool.name: pool for pool in pools}
        self._views: dict[tuple[str, Library], Views] = {}
        self._mapped: dict[str, MappedPool] = {}
        self._libraries = libraries
        with ExitStack() as opened:  # if one cannot be opened, the others are closed
            opened.callback(self.close)
            for pool in pools:
                self._open(pool)
            opened.pop_all()

    def meet(
        self,
        pools: Sequence[PoolAddress],
        owners: Mapping[str, str],
        places: Mapping[str, Sequence[TensorPlace]],
    ) -> None:
        """Open pools of a worker that is back, as at the beginning."""
        self._owners = {**self._owners, **owners}
        self._places = {**self._places, **places}
        for pool in pools:
            self._addresses[pool.name] = pool
            self._open(pool)

    def unmap(self, pools: Iterable[str]) -> None:
        """Close pools of the dead, those of them that are open here; nothing runs with them."""
        for name in pools:
            if self._addresses.pop(name, None) is None:
                continue
            for library in self._libraries:
                self._views.pop((name, library), None)
            if self._gpu is not None:
                self._gpu.close_pool(name)
            if (mapped := self._mapped.pop(name, None)) is not None:
                self._unmap(mapped)

    def _open(self, pool: PoolAddress) -> None:
        size = pool.slot_bytes
        if pool.gpu:
            assert self._gpu is not None, "a worker without a GPU is sent no such pool"
            data = self._gpu.open(pool)
            if data is not None:
                self._views[pool.name, "torch"] = Views(data, slot_bytes=size, library="torch")
            return
        mapped = MappedPool(pool, writable=pool.owner == self._worker)
        self._mapped[pool.name] = mapped
        if self._gpu is not None:
            mapped = self._mapped[pool.name] = self._gpu.pin(mapped)
        for library in self._libraries:
            self._views[pool.name, library] = Views(
                mapped.array(), slot_bytes=size, library=library
            )

    # --- leases of our own slots ------------------------------------------------------------------

    def owner(self, pool: str) -> str:
        """Return the worker that owns `pool`."""
        return self._owners[pool]

    def owns(self, pool: str) -> bool:
        """Whether `pool` is our own, of this job."""
        return pool in self._slots

    def can_lease(self, item: int, attempt: int, names: Iterable[str]) -> bool:
        """Whether there is a slot for the item in each pool of our tensors `names`."""
        pools = {self._where[name][0] for name in names}
        return all(self._slots[pool].can_lease(item, attempt) for pool in pools)

    def lease(
        self, item: int, attempt: int, names: Iterable[str], before: Collection[str] = ()
    ) -> dict[str, TensorHandle]:
        """Return handles of our tensors `names` of the item, whose slots are leased if need be.

        Args:
            item: of the job.
            attempt: of the item.
            names: what is about to be written.
            before: what the item has already. Where that is ours, and lies in no slot here, our
                last incarnation wrote it: a new slot does not wait for it, nor for its readers.
        """
        return {name: self._handle(item, attempt, *self._where[name], before) for name in names}

    def _handle(
        self, item: int, attempt: int, pool: str, place: TensorPlace, before: Collection[str]
    ) -> TensorHandle:
        slots = self._slots[pool]
        slot = slots.slot_of(item, attempt)
        if slot is None:
            places = [each for each in self._places[pool] if each.name not in before]
            readers = {reader for each in places for reader in each.readers}
            slot = slots.lease(item, attempt, readers, writes=[each.name for each in places])
        return TensorHandle(
            pool=pool, slot=slot, offset=place.offset, shape=place.shape, dtype=place.dtype
        )

    def written(self, item: int, attempt: int, names: Iterable[str]) -> None:
        """The run is done that wrote our tensors `names` of the item, whose slots are leased."""
        names = set(names)
        for pool in {self._where[name][0] for name in names}:
            slot = self._slots[pool].slot_of(item, attempt)
            assert slot is not None, "it holds the slot until it is written"
            self._slots[pool].written(slot, names)

    def free(self, pool: str, slot: int, item: int, attempt: int, reader: str) -> None:
        """`reader` has let go of a slot of ours."""
        self._slots[pool].free(slot, item, attempt, reader)

    def keep_for(self, item: int, attempt: int, handles: Mapping[str, TensorHandle]) -> None:
        """Let the item's slots here, if any, be held only by the readers of these tensors."""
        for pool, slots in self._slots.items():
            if (slot := slots.slot_of(item, attempt)) is None:
                continue
            kept = [self._where[name][1] for name, h in handles.items() if h.pool == pool]
            slots.keep_for(slot, {reader for place in kept for reader in place.readers})

    def give_up(self, attempts: Mapping[int, int]) -> None:
        """Free our slots of all attempts before these; nobody has them any more."""
        for slots in self._slots.values():
            for item, attempt in attempts.items():
                slots.give_up(item, attempt)

    def excuse(self, item: int, attempt: int, readers: Iterable[str]) -> None:
        """Count `readers` as having let go of what we have of the item; they still may say so."""
        for slots in self._slots.values():
            slots.excuse(item, attempt, readers)

    def excuse_finished(self, oldest: int, finished: Sequence[int], *, window: int) -> None:
        """Count everybody as having let go of `finished` items, and of all before `oldest`."""
        for slots in self._slots.values():
            slots.excuse_finished(oldest, finished, window=window)

    # --- tensors ----------------------------------------------------------------------------------

    def views(
        self, handles: Mapping[str, TensorHandle], names: Iterable[str], library: Library
    ) -> dict[str, object]:
        """Return the tensors `names`, those that there are and that lie in place, as views."""
        return {
            name: self._views[handles[name].pool, library].tensor(handles[name])
            for name in names
            if name in handles
        }

    def is_in_place(self, pool: str) -> bool:
        """Whether a stage on our GPU takes tensors of `pool` where they lie."""
        return bool(self._addresses[pool].gpu) and (pool, "torch") in self._views

    def elsewhere(self, names: Iterable[str]) -> dict[str, TensorSpec]:
        """Return what, of the tensors `names`, may lie where a stage on our GPU cannot take it."""
        wanted = set(names)
        return {
            place.name: TensorSpec(place.shape, place.dtype)
            for pool, places in self._places.items()
            for place in places
            if place.name in wanted and not self.is_in_place(pool)
        }

    def pointer(self, handle: TensorHandle) -> int:
        """Return the address of a tensor, for copies on a GPU."""
        assert self._gpu is not None
        start = self._gpu.pointer(handle.pool)
        return start + handle.slot * self._addresses[handle.pool].slot_bytes + handle.offset

    def nbytes(self, handles: Mapping[str, TensorHandle], names: Iterable[str]) -> dict[str, int]:
        """Return how many bytes each worker wrote of the tensors `names`, those that there are."""
        nbytes: dict[str, int] = {}
        for name in names:
            if handle := handles.get(name):
                owner = self._owners[handle.pool]
                nbytes[owner] = nbytes.get(owner, 0) + tensor_bytes(handle)
        return nbytes

    def transports(self) -> dict[str, str]:
        """Return how the tensors of each worker get here, the fastest way that one takes."""
        found = {}
        addresses = [pool for pool in self._addresses.values() if pool.owner]
        for pool in sorted(addresses, key=lambda one: bool(one.gpu)):
            is_view = self.is_in_place(pool.name)
            found[pool.owner] = (VIEW if is_view else COPY) if pool.gpu else HOST
        return found | {self._worker: LOCAL}

    def close(self) -> None:
        """Close everything.

        Raises:
            BufferError: a stage has kept a view, which would dangle.
        """
        self._views.clear()
        if self._gpu is not None:
            self._gpu.close()
        for mapped in self._mapped.values():
            self._unmap(mapped)

    def _unmap(self, mapped: MappedPool) -> None:
        try:
            mapped.close()
        except BufferError:
            self._close_after_collecting(mapped)

    def _close_after_collecting(self, mapped: MappedPool) -> None:
        """Views die with the frames of a traceback, which may be a cycle.

        Only if one is left: with torch loaded, collecting takes longer than all else here.
        """
        gc.collect()
        try:
            mapped.close()
        except BufferError as error:
            raise BufferError(
                f"a stage kept a view of pool {mapped.address.name}, which is lent for a run"
            ) from error


def tensor_bytes(handle: TensorHandle) -> int:
    """Return the size of what `handle` names."""
    return prod(handle.shape) * ITEM_BYTES[handle.dtype]
