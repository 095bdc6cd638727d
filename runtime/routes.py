"""Where a worker sends its items next: one `Route` for each following stage."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Literal

from ipc.messages import ItemReady
from runtime import dispatch

Rule = Literal["segment", "round_robin", "least_loaded"]
Sends = list[tuple[str, ItemReady]]  # (worker, message)


class Route:
    """The replicas of one stage as one sender sees them; keeps what none of them may get yet."""

    def __init__(
        self,
        stage: str,
        workers: Sequence[str],
        *,
        rule: Rule,
        items_per_segment: int,
        owner: Callable[[str], str],
    ) -> None:
        self.stage = stage
        self._workers = tuple(workers)
        self._rule = rule
        self._items_per_segment = items_per_segment
        self._owner = owner  # of a pool
        self._sent: dict[tuple[int, int], str] = {}  # unfreed (item, attempt) -> where it went
        self._unfreed = dict.fromkeys(self._workers, 0)
        self._waiting: deque[ItemReady] = deque()

    def offer(self, ready: ItemReady) -> Sends:
        """Take an item that goes this way; return what may be sent now, and where."""
        self._waiting.append(ready)
        return self._flush()

    def freed(self, item: int, attempt: int) -> Sends:
        """Note that the next stage let go of an item; return what may be sent now."""
        worker = self._sent.pop((item, attempt), None)
        if worker is None:
            return []  # it let go of a second slot of ours, or of a failed item
        self._unfreed[worker] -= 1
        return self._flush()

    def sent(self) -> dict[tuple[int, int], str]:
        """Return where each item is that was sent and not let go of."""
        return self._sent

    def _flush(self) -> Sends:
        sends = []
        while self._waiting and (worker := self._choose(self._waiting[0])):
            ready = self._waiting.popleft()
            if not ready.failed:  # a failed one is let go of at once, and may hold nothing of ours
                self._sent[ready.item, ready.attempt] = worker
                self._unfreed[worker] += 1
            sends.append((worker, ready))
        return sends

    def _choose(self, ready: ItemReady) -> str | None:
        if self._rule == "segment":
            return dispatch.of_segment(ready.item, self._items_per_segment, self._workers)
        owners = (self._owner(handle.pool) for handle in ready.handles.values())
        if owner := dispatch.of_owner(owners, self._workers):
            return owner
        if self._rule == "round_robin":
            return dispatch.round_robin(ready.item, self._workers)
        return dispatch.least_loaded(self._unfreed)
