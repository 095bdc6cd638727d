"""Which items may be under way: the admission window. Pure bookkeeping.

Item n is admitted only while n < (oldest unfinished item) + window, and every pool has a slot for
each item of the window; so an admitted item always finds a slot, in whatever order items overtake
each other between replicas, and nothing can deadlock.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence


class Admission:
    """The items of one job: admitted in order, finished in any order."""

    def __init__(self, *, num_items: int, window: int, durable: Iterable[int] = ()) -> None:
        """Start a job of items 0 .. num_items - 1, of which `durable` are finished already."""
        self.num_items = num_items
        self._window = window
        self._next = 0
        self._oldest = 0
        self._finished_ahead: set[int] = set()  # finished, but newer than the oldest unfinished
        self._before = frozenset(durable)  # never admitted
        self.finish(self._before)

    def admit(self) -> list[int]:
        """Return the items that may be admitted now; they count as admitted from here on."""
        end = min(self._oldest + self._window, self.num_items)
        items = [item for item in range(self._next, end) if item not in self._before]
        self._next = max(self._next, end)
        return items

    def finish(self, items: Iterable[int]) -> None:
        """Note that `items` are durable or have failed for good."""
        self._finished_ahead.update(items)
        while self._oldest in self._finished_ahead:
            self._finished_ahead.remove(self._oldest)
            self._oldest += 1

    def end_with_segment(self, items_per_segment: int) -> None:
        """Admit no more than the rest of segments that have begun, so that these are closed."""
        begun = -(-self._next // items_per_segment) * items_per_segment
        self.num_items = min(self.num_items, begun)

    def unfinished(self) -> Sequence[int]:
        """Return the items that are admitted and not finished, at most a window of them."""
        return [
            item for item in range(self._oldest, self._next) if item not in self._finished_ahead
        ]

    @property
    def all_finished(self) -> bool:
        """Whether nothing is left to do."""
        return self._oldest >= self.num_items
