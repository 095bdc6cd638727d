"""The pools of one job in one worker: its own, to write, and those of others, to read."""

from __future__ import annotations

import gc
from collections.abc import Mapping, Sequence
from math import prod

from ipc.host import MappedPool
from ipc.pool import SlotPool
from ipc.records import PoolAddress, TensorHandle, TensorPlace
from runtime.views import Views
from stages.base import ITEM_BYTES, Library


class JobMemory:
    """Opened once per job; gives views of slots, and keeps the leases of its own pool."""

    def __init__(
        self,
        worker: str,
        pools: Sequence[PoolAddress],
        owners: Mapping[str, str],
        places: Sequence[TensorPlace],
        libraries: set[Library],
    ) -> None:
        self._mapped = [MappedPool(pool, writable=pool.owner == worker) for pool in pools]
        self._owners = owners
        self._views = {
            (mapped.address.name, library): Views(
                mapped.array(), slot_bytes=mapped.address.slot_bytes, library=library
            )
            for mapped in self._mapped
            for library in libraries
        }
        self._places = {place.name: place for place in places}
        own = next((pool for pool in pools if pool.owner == worker), None)
        self.slots = SlotPool(own.name, num_slots=own.num_slots) if own else None

    def owner(self, pool: str) -> str:
        """Return the worker that owns `pool`."""
        return self._owners[pool]

    def nbytes(self, handle: TensorHandle) -> int:
        """Return the size of what `handle` names."""
        return prod(handle.shape) * ITEM_BYTES[handle.dtype]

    def lease(self, item: int, attempt: int, names: Sequence[str]) -> dict[str, TensorHandle]:
        """Return handles of the tensors `names` of the item's slot, leased if it has none yet."""
        if not names:
            return {}
        assert self.slots is not None, "a worker that writes has a pool"
        slot = self.slots.slot_of(item, attempt)
        if slot is None:
            readers = {reader for place in self._places.values() for reader in place.readers}
            slot = self.slots.lease(item, attempt, readers)
        return {name: self._handle(slot, self._places[name]) for name in names}

    def _handle(self, slot: int, place: TensorPlace) -> TensorHandle:
        assert self.slots is not None
        return TensorHandle(
            pool=self.slots.name,
            slot=slot,
            offset=place.offset,
            shape=place.shape,
            dtype=place.dtype,
        )

    def keep_for(self, item: int, attempt: int, handles: Mapping[str, TensorHandle]) -> None:
        """Let the item's own slot, if any, be held only by the readers of these tensors."""
        if self.slots is None or (slot := self.slots.slot_of(item, attempt)) is None:
            return
        mine = [name for name, handle in handles.items() if handle.pool == self.slots.name]
        self.slots.keep_for(slot, {r for name in mine for r in self._places[name].readers})

    def views(
        self, handles: Mapping[str, TensorHandle], names: Sequence[str], library: Library
    ) -> dict[str, object]:
        """Return the tensors `names`, those that there are, as views."""
        return {
            name: self._views[handles[name].pool, library].tensor(handles[name])
            for name in names
            if name in handles
        }

    def close(self) -> None:
        """Unmap everything.

        Raises:
            BufferError: a stage has kept a view, which would dangle.
        """
        self._views.clear()
        for mapped in self._mapped:
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
