"""In which order one replica of a sink takes its items, however they arrive."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence


class SinkTurns:
    """The items of segments r, r + R, r + 2R ... in order, for replica r of R.

    An encoder takes frames in order; replicas upstream overtake each other. The admission window
    covers a whole segment for each replica, so the item whose turn it is has been admitted.
    """

    def __init__(
        self,
        *,
        num_items: int,
        items_per_segment: int,
        replica: int,
        num_replicas: int,
        durable: Sequence[tuple[int, int]] = (),
    ) -> None:
        """Begin with the first that is not durable.

        Args:
            num_items: of the job.
            items_per_segment: of the sink.
            replica: which one this is.
            num_replicas: of the sink.
            durable: first and last + 1 of runs of items that nobody will send, in order.
        """
        self._durable = durable
        self._starts = [start for start, _end in durable]
        self._order = self._all(num_items, items_per_segment, replica, num_replicas)
        self._next = next(self._order, None)

    def next_item(self) -> int | None:
        """Return the item whose turn it is, None after the last."""
        return self._next

    def has_taken(self, item: int) -> bool:
        """Whether the turn of `item`, one of this replica's, was before, or will not come."""
        return self._next is None or item < self._next or self._is_durable(item)

    def took(self) -> None:
        """Note that the item whose turn it was has been taken."""
        self._next = next(self._order, None)

    def _all(self, num_items: int, per_segment: int, replica: int, replicas: int) -> Iterator[int]:
        for start in range(replica * per_segment, num_items, replicas * per_segment):
            for item in range(start, min(start + per_segment, num_items)):
                if not self._is_durable(item):
                    yield item

    def _is_durable(self, item: int) -> bool:
        before = bisect_right(self._starts, item) - 1
        return before >= 0 and item < self._durable[before][1]
