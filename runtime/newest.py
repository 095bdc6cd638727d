"""Which attempt of an item counts, as one worker knows it. Pure bookkeeping."""

from __future__ import annotations

from collections.abc import Mapping


class Newest:
    """An item that nobody said anything of is in its first attempt, 0."""

    def __init__(self, window: int) -> None:
        """`window`: an item is under way only while none older by this much is."""
        self._window = window
        self._attempts: dict[int, int] = {}

    def __bool__(self) -> bool:
        return bool(self._attempts)

    def raise_to(self, attempts: Mapping[int, int]) -> None:
        """Older attempts of these items count no more."""
        self._attempts.update(attempts)
        oldest = max(self._attempts, default=0) - 2 * self._window
        for item in [item for item in self._attempts if item < oldest]:
            del self._attempts[item]

    def is_old(self, item: int, attempt: int) -> bool:
        """Whether a newer attempt of the item is announced."""
        return attempt < self._attempts.get(item, 0)
