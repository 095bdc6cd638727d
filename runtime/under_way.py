"""What a worker runs at this moment, where whoever finds it dead can read it.

Heartbeats tell too, but are half a second old. The supervisor makes the memory; the worker writes
numbers to it, the item's last, so that a death in between leaves none or a whole one.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from types import TracebackType

from ipc.host import HostPool, MappedPool
from ipc.records import PoolAddress

RUNS, BEGINS = 0, 1  # what is computed; what is being queued behind it on a GPU
_NUM_NOTES = 2
_WORDS = 3  # of a note: item + 1 (0: none), attempt, position of the stage
_BYTES = _NUM_NOTES * _WORDS * 8


@dataclass(frozen=True, slots=True, order=True)
class Noted:
    """One run that had begun and not ended."""

    item: int
    attempt: int
    position: int  # of its stage in the path


class UnderWay:
    """The worker's end. Belongs to its main thread."""

    def __init__(self, address: PoolAddress) -> None:
        """Open the memory."""
        self._mapped = MappedPool(address, writable=True)
        self._words = self._mapped.array().data.cast("q")
        self.clear(RUNS)
        self.clear(BEGINS)

    def note(self, which: int, item: int, attempt: int, position: int) -> None:
        """`RUNS` or `BEGINS` this from now on."""
        at = which * _WORDS
        self._words[at + 1] = attempt
        self._words[at + 2] = position
        self._words[at] = item + 1

    def clear(self, which: int) -> None:
        """It has ended."""
        self._words[which * _WORDS] = 0

    def close(self) -> None:
        """Close the memory. Safe to call twice."""
        self._words.release()
        self._mapped.close()


class Notes:
    """The supervisor's end: owns the memory of one incarnation of a worker."""

    def __init__(self, worker: str) -> None:
        """Make the memory.

        Raises:
            NoMemory: the host refused it.
        """
        self._pool = HostPool(f"{worker}.runs", owner=worker, num_slots=1, slot_bytes=_BYTES)
        self.address = self._pool.address

    def read(self) -> tuple[Noted, ...]:
        """Return what is under way, each once."""
        words = memoryview(os.pread(self.address.fd, _BYTES, 0)).cast("q")
        starts = (which * _WORDS for which in range(_NUM_NOTES))
        found = {Noted(words[at] - 1, words[at + 1], words[at + 2]) for at in starts if words[at]}
        return tuple(sorted(found))

    def close(self) -> None:
        """Give the memory up. Safe to call twice."""
        self._pool.close()

    def __enter__(self) -> Notes:
        """Return the notes."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Give the memory up."""
        self.close()
