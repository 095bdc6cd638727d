"""The items of one worker that wait for their turn."""

from __future__ import annotations

from collections.abc import Callable

from ipc.errors import ProtocolError
from ipc.messages import ItemReady

Key = tuple[int, int, int]  # (-position of the stage, item, attempt): the smallest goes first


class ItemQueue:
    """Of the items that are ready, the one furthest along the path goes first, then the oldest."""

    def __init__(self) -> None:
        self._items: dict[Key, ItemReady] = {}

    def __bool__(self) -> bool:
        return bool(self._items)

    def put(self, position: int, ready: ItemReady) -> None:
        """Queue an item for the stage at `position`.

        Raises:
            ProtocolError: it is here already.
        """
        key = (-position, ready.item, ready.attempt)
        if key in self._items:
            raise ProtocolError(f"item {ready.item}.{ready.attempt} comes twice to {ready.stage}")
        self._items[key] = ready

    def first(self, is_turn: Callable[[ItemReady], bool]) -> ItemReady | None:
        """Return the first item whose turn it is."""
        if not self._items:
            return None
        first = self._items[min(self._items)]  # nearly always its turn, and quickly found
        if is_turn(first):
            return first
        keys = [key for key, ready in self._items.items() if is_turn(ready)]
        return self._items[min(keys)] if keys else None

    def take(self, position: int, ready: ItemReady) -> None:
        """It waits no more."""
        del self._items[-position, ready.item, ready.attempt]

    def drop(self, is_old: Callable[[int, int], bool]) -> None:
        """Forget attempts that count no more."""
        self._items = {key: item for key, item in self._items.items() if not is_old(*key[1:])}

    def clear(self) -> None:
        """Forget all."""
        self._items.clear()
