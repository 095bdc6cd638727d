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
        self._dead: set[str] = set()

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

    def lose(self, worker: str) -> None:
        """`worker` is dead: nothing goes there, and what went there is not awaited."""
        if worker in self._unfreed:
            self._dead.add(worker)
            self._sent = {key: other for key, other in self._sent.items() if other != worker}
            self._unfreed[worker] = 0

    def meet(self, worker: str) -> Sends:
        """`worker` is back; return what may be sent now."""
        self._dead.discard(worker)
        return self._flush()

    def take_back(self, worker: str, ready: ItemReady) -> None:
        """An item could not be sent, as `worker` is dead; it waits here."""
        self.lose(worker)
        self._waiting.appendleft(ready)

    def drop(self, is_old: Callable[[int, int], bool]) -> Sends:
        """Forget what is of old attempts; return what may be sent now."""
        kept = [ready for ready in self._waiting if not is_old(ready.item, ready.attempt)]
        self._waiting = deque(kept)
        for key in [key for key in self._sent if is_old(*key)]:
            self._unfreed[self._sent.pop(key)] -= 1
        return self._flush()

    def _flush(self) -> Sends:
        if self._dead:
            return self._flush_past_the_dead()
        sends = []
        while self._waiting and (worker := self._choose(self._waiting[0])):
            sends.append(self._send(worker, self._waiting.popleft()))
        return sends

    def _flush_past_the_dead(self) -> Sends:
        """Let items overtake those that only a dead worker may get."""
        sends: Sends = []
        kept: deque[ItemReady] = deque()
        for ready in self._waiting:
            worker = self._choose(ready)
            if worker is None or worker in self._dead:
                kept.append(ready)
            else:
                sends.append(self._send(worker, ready))
        self._waiting = kept
        return sends

    def _send(self, worker: str, ready: ItemReady) -> tuple[str, ItemReady]:
        if not ready.failed:  # a failed one is let go of at once, and may hold nothing of ours
            self._sent[ready.item, ready.attempt] = worker
            self._unfreed[worker] += 1
        return worker, ready

    def _choose(self, ready: ItemReady) -> str | None:
        if self._rule == "segment":
            return dispatch.of_segment(ready.item, self._items_per_segment, self._workers)
        owners = (self._owner(handle.pool) for handle in ready.handles.values())
        if owner := dispatch.of_owner(owners, self._workers):
            return owner
        if self._rule == "round_robin":
            return dispatch.round_robin(ready.item, self._workers)
        if not self._dead:
            return dispatch.least_loaded(self._unfreed)
        living = {name: count for name, count in self._unfreed.items() if name not in self._dead}
        worker = min(living, key=lambda name: living[name], default=None)
        return worker if worker and living[worker] < dispatch.MAX_UNFREED else None
