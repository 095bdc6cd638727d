"""What a message about an item must say before a worker acts on it, or looks at memory.

Whoever sends is a worker of ours, so what is refused here is a bug, or no message of ours at all. A
handle is only ever believed if it names what the plan has put there; so no view can reach beyond
its tensor, whatever a message says.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import prod

from ipc.errors import ProtocolError
from ipc.messages import ItemReady
from ipc.records import PoolAddress, TensorHandle, TensorPlace
from ipc.replay_messages import MeetPeer
from ipc.setup_messages import OpenJob
from stages.base import ITEM_BYTES


def check_places(job: OpenJob | MeetPeer) -> None:
    """Refuse pools whose tensors reach beyond their slots.

    Raises:
        ProtocolError: one does, or has no dtype that we know.
    """
    for pool in job.pools:
        for place in job.places.get(pool.name, ()):
            size = prod(place.shape) * _item_bytes(place.dtype, place.name)
            if place.offset + size > pool.slot_bytes:
                raise ProtocolError(
                    f"pool {pool.name}: tensor {place.name} ends at byte {place.offset + size}, "
                    f"a slot at {pool.slot_bytes}"
                )


class Border:
    """Checks what comes about the items of one job."""

    def __init__(self, job: OpenJob, reads: Mapping[str, tuple[str, ...]]) -> None:
        """Take a job, and what each stage of this worker reads.

        Raises:
            ProtocolError: its tensors reach beyond their slots.
        """
        self._num_items, self._reads = job.num_items, reads
        self._owners: dict[str, str] = {}
        self._pools: dict[str, PoolAddress] = {}
        self._places: dict[str, Mapping[str, TensorPlace]] = {}  # pool -> tensor -> where it lies
        self.meet(job)

    def meet(self, opened: OpenJob | MeetPeer) -> None:
        """Take the pools of a worker that is back too.

        Raises:
            ProtocolError: its tensors reach beyond their slots.
        """
        check_places(opened)
        self._owners |= opened.owners
        self._pools |= {pool.name: pool for pool in opened.pools}
        self._places |= {
            pool: {place.name: place for place in places} for pool, places in opened.places.items()
        }

    def check(self, ready: ItemReady) -> None:
        """Refuse an item that is none of this job, or whose tensors are not where they must be.

        Raises:
            ProtocolError: why.
        """
        if ready.stage not in self._reads:
            raise ProtocolError(f"{_said(ready)} goes to stage {ready.stage!r}, which is not here")
        if ready.item >= self._num_items:
            raise ProtocolError(f"{_said(ready)} is not one of {self._num_items}")
        for name, handle in ready.handles.items():
            if why := self._problem(name, handle):
                raise ProtocolError(f"{_said(ready)}: tensor {name!r} {why}")
        for name in self._reads[ready.stage]:
            if name in ready.handles and ready.handles[name].pool not in self._places:
                pool = ready.handles[name].pool
                raise ProtocolError(f"{_said(ready)}: {name!r} lies in {pool!r}, not open here")

    def _problem(self, name: str, handle: TensorHandle) -> str:
        """Return what is wrong with a handle; of a pool that passes through little is known."""
        if handle.pool not in self._owners:
            return f"lies in pool {handle.pool!r}, which this job has not"
        if handle.pool not in self._places:
            return ""
        place = self._places[handle.pool].get(name)
        if place is None:
            return f"is none of pool {handle.pool!r}"
        if handle.slot >= self._pools[handle.pool].num_slots:
            return f"lies in slot {handle.slot} of {self._pools[handle.pool].num_slots}"
        if (handle.offset, handle.shape, handle.dtype) != (place.offset, place.shape, place.dtype):
            return f"is not as planned: {handle}"
        return ""


def _said(ready: ItemReady) -> str:
    return f"{ready.sender!r} sends item {ready.item}.{ready.attempt}, which"


def _item_bytes(dtype: str, name: str) -> int:
    if dtype not in ITEM_BYTES:
        raise ProtocolError(f"tensor {name}: no dtype {dtype!r}")
    return ITEM_BYTES[dtype]
