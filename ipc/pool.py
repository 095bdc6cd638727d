"""Who holds which slot of a pool: the bookkeeping of one owner. Touches no memory.

A slot holds all tensors that one item writes in one worker. It is leased when the item's first
stage there starts to write, and free when all its tensors have been written and every stage that
reads them has said so. The state is the owner's alone and changes by messages; so there are no
shared counters, and nothing to repair in memory when a reader dies. Not thread-safe: the owner's
main thread has it alone.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from ipc.errors import ProtocolError, WouldBlock


@dataclass(frozen=True, slots=True)
class PoolStats:
    """A snapshot for reports and tests."""

    slots: int
    free: int
    high_water: int  # most slots ever leased at once


@dataclass(slots=True)
class _Lease:
    item: int
    attempt: int
    readers: set[str]  # stages that have not let go yet
    unwritten: set[str]  # tensors; one that nobody reads holds the slot until it is written


class SlotPool:
    """The free list and the leases of one pool."""

    def __init__(self, name: str, *, num_slots: int) -> None:
        if num_slots < 1:
            raise ValueError(f"pool {name}: needs at least one slot, got {num_slots}")
        self.name = name
        self._num_slots = num_slots
        self._free = list(range(num_slots))  # a stack: the slot freed last is warm in the cache
        self._leases: dict[int, _Lease] = {}
        self._slot_of: dict[tuple[int, int], int] = {}
        self._high_water = 0
        self._excused: set[tuple[int, int, str]] = set()  # (item, attempt, reader)

    def can_lease(self, item: int, attempt: int) -> bool:
        """Whether the item has a slot, or there is a free one for it."""
        return bool(self._free) or (item, attempt) in self._slot_of

    def lease(
        self, item: int, attempt: int, readers: Iterable[str], *, writes: Iterable[str] = ()
    ) -> int:
        """Take a free slot for the item.

        Args:
            item: that will hold it.
            attempt: of the item.
            readers: stages, each of which has to let go of it.
            writes: tensors, each of which has to be written before that is enough.

        Raises:
            WouldBlock: every slot is leased; a `SlotFreed` has to arrive first.
            ProtocolError: this attempt of the item has a slot already.
        """
        if (item, attempt) in self._slot_of:
            raise ProtocolError(f"pool {self.name}: item {item}.{attempt} has a slot already")
        if not self._free:
            raise WouldBlock(f"pool {self.name}: all {self._num_slots} slots are leased")
        slot = self._free.pop()
        self._leases[slot] = _Lease(item, attempt, set(readers), set(writes))
        self._slot_of[item, attempt] = slot
        self._high_water = max(self._high_water, len(self._leases))
        return slot

    def slot_of(self, item: int, attempt: int) -> int | None:
        """Return the slot that this attempt of the item holds, if any."""
        return self._slot_of.get((item, attempt))

    def free(self, slot: int, item: int, attempt: int, reader: str) -> bool:
        """Note that `reader` has let go of `slot`, and return whether the slot is free now.

        Raises:
            ProtocolError: the item does not hold the slot, or `reader` had let go already.
        """
        if self._excused and (item, attempt, reader) in self._excused:
            self._excused.remove((item, attempt, reader))
            return False  # it counts as that already
        lease = self._leases.get(slot)
        if lease is None or (lease.item, lease.attempt) != (item, attempt):
            holder = f"{lease.item}.{lease.attempt}" if lease else "nobody"
            raise ProtocolError(
                f"pool {self.name}: {reader} frees slot {slot} of item {item}.{attempt}, "
                f"but {holder} holds it"
            )
        if reader not in lease.readers:
            raise ProtocolError(
                f"pool {self.name}: {reader} frees slot {slot} of item {item}.{attempt}, "
                f"but only {sorted(lease.readers)} still read it"
            )
        lease.readers.remove(reader)
        return self._release_if_done(slot, lease)

    def written(self, slot: int, names: Iterable[str]) -> bool:
        """Note that these tensors of `slot` are written, and return whether it is free now."""
        lease = self._leases[slot]
        lease.unwritten -= set(names)
        return self._release_if_done(slot, lease)

    def keep_for(self, slot: int, readers: Iterable[str]) -> bool:
        """Let only `readers` hold `slot` from now on, and return whether it is free now.

        For an item that failed: the tensors it never wrote will never be let go.
        """
        lease = self._leases[slot]
        lease.readers &= set(readers)
        lease.unwritten.clear()
        return self._release_if_done(slot, lease)

    def excuse(self, item: int, attempt: int, readers: Iterable[str]) -> bool:
        """Count `readers` as having let go of the item's slot, if it has one; is it free now?

        One of them is dead, and which of them have said so nobody knows; so they still may.
        """
        slot = self._slot_of.get((item, attempt))
        if slot is None:
            return False
        lease = self._leases[slot]
        excused = lease.readers & set(readers)
        self._excused.update((item, attempt, reader) for reader in excused)
        lease.readers -= excused
        return self._release_if_done(slot, lease)

    def excuse_finished(self, oldest: int, finished: Iterable[int], *, window: int) -> None:
        """Count everybody as having let go of `finished` items, and of all before `oldest`.

        What was excused of items older by `window` is forgotten: nobody says it any more.
        """
        ahead = set(finished)
        for item, attempt in [key for key in self._slot_of if key[0] < oldest or key[0] in ahead]:
            self.excuse(item, attempt, set(self._leases[self._slot_of[item, attempt]].readers))
        self._excused = {key for key in self._excused if key[0] >= oldest - window}

    def give_up(self, item: int, attempt: int) -> None:
        """Free the slots of the item's attempts before `attempt`, whoever held them."""
        for key in [key for key in self._slot_of if key[0] == item and key[1] < attempt]:
            slot = self._slot_of.pop(key)
            del self._leases[slot]
            self._free.append(slot)

    def _release_if_done(self, slot: int, lease: _Lease) -> bool:
        if lease.readers or lease.unwritten:
            return False
        del self._leases[slot], self._slot_of[lease.item, lease.attempt]
        self._free.append(slot)
        return True

    def leases(self) -> list[tuple[int, int]]:
        """Return (item, attempt) of every leased slot."""
        return sorted(self._slot_of)

    def stats(self) -> PoolStats:
        """Return a snapshot of the slots' states."""
        return PoolStats(self._num_slots, len(self._free), self._high_water)
