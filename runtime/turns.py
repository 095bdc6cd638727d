"""In which order one replica of a sink takes its items, however they arrive."""

from __future__ import annotations

from collections.abc import Iterable, Iterator


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
        durable: Iterable[int] = (),
    ) -> None:
        self._durable = frozenset(durable)  # nobody will send these
        self._order = self._all(num_items, items_per_segment, replica, num_replicas)
        self._next = next(self._order, None)

    def next_item(self) -> int | None:
        """Return the item whose turn it is, None after the last."""
        return self._next

    def took(self) -> None:
        """Note that the item whose turn it was has been taken."""
        self._next = next(self._order, None)

    def _all(self, num_items: int, per_segment: int, replica: int, replicas: int) -> Iterator[int]:
        for start in range(replica * per_segment, num_items, replicas * per_segment):
            for item in range(start, min(start + per_segment, num_items)):
                if item not in self._durable:
                    yield item
