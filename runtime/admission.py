"""Which items may be under way, and in which attempt: the admission window. Pure bookkeeping.

Item n is admitted only while n < (oldest unfinished item) + window, and every pool has a slot for
each item of the window; so an admitted item always finds a slot, in whatever order items overtake
each other between replicas, and nothing can deadlock.

Lost items are admitted again, those that ran when their worker died alone first: each before
anything else, until the stage that it died in is done with it. An item that kills twice is given
up: it is admitted once more, marked.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from ipc.records import ItemAttempt

MAX_KILLS = 2


@dataclass(frozen=True, slots=True)
class Admitted:
    """An item as it begins."""

    item: int
    attempt: int
    failed: str  # why it is given up before it begins; "" = it is whole


class Admission:
    """The items of one job: admitted in order, finished in any order."""

    def __init__(
        self,
        *,
        num_items: int,
        window: int,
        durable: Sequence[tuple[int, int]] = (),
    ) -> None:
        """Start a job of items 0 .. num_items - 1.

        Args:
            num_items: of the job.
            window: W of the plan.
            durable: first and last + 1 of runs of items that are finished already, in order.
        """
        self.num_items = num_items
        self.is_draining = False
        self._drained = num_items
        self._window = window
        self._needs: Sequence[int] = ()  # of the section before, for each item
        self._num_before = 0  # leading items of the section before that are finished
        self._next = 0
        self._oldest = 0
        self._ahead: set[int] = set()  # finished, but newer than the oldest unfinished
        self._before = deque(durable)  # never admitted
        self._attempts: dict[int, int] = {}  # of unfinished items that were lost
        self._kills: dict[tuple[int, int], int] = {}  # (item, position) -> how often
        self._given_up: dict[int, str] = {}  # item -> why
        self._away: set[int] = set()  # lost, and not admitted again yet
        self._ready: set[int] = set()  # of these, what may be
        self._alone: deque[tuple[int, int]] = deque()  # (item, position it died at) to be tried
        self._trial: tuple[int, int] | None = None  # the one that is
        self._skip()

    def admit(self) -> list[Admitted]:
        """Return the items that may be admitted now; they count as admitted from here on."""
        if self._trial is None and self._alone:
            self._next_trial()
            if self._trial is not None:
                item = self._trial[0]
                self._away.discard(item)
                self._ready.discard(item)
                return [self._admitted(item)]
        if self._trial is not None or self._alone:
            return []
        items = sorted(self._ready)
        self._away -= self._ready
        self._ready.clear()
        return [self._admitted(item) for item in (*items, *self._new())]

    def _new(self) -> Iterator[int]:
        while self._next < min(self._oldest + self._window, self._limit) and self._may_begin:
            item = self._next
            self._next += 1
            self._skip()
            yield item

    @property
    def _may_begin(self) -> bool:
        return not self._needs or self._needs[self._next] <= self._num_before

    def end_here(self) -> None:
        """Admit nothing new, not even what a segment that has begun still lacks."""
        self.is_draining = True
        self._drained = min(self._drained, self._next)

    @property
    def waits(self) -> bool:
        """Whether the next item waits for the section before."""
        return self._next < self.num_items and not self._may_begin

    def hold_back(self, needs: Sequence[int]) -> None:
        """Admit each item only when `reach` has told of as many items as `needs` has for it."""
        self._needs = needs

    def reach(self, num_before: int) -> None:
        """Note how many leading items of the section before are finished."""
        self._num_before = num_before

    @property
    def _limit(self) -> int:
        return min(self._drained, self.num_items) if self.is_draining else self.num_items

    def drain(self, items_per_segment: int) -> None:
        """Admit nothing new but what completes segments that have begun; safe to call twice."""
        if not self.is_draining:
            self._drained = -(-self._next // items_per_segment) * items_per_segment
            self.is_draining = True

    def _skip(self) -> None:
        """Step over what is durable from before."""
        while self._before and self._next >= self._before[0][0]:
            start, end = self._before.popleft()
            self._next = max(self._next, end)
            self.finish(range(start, end))

    def _admitted(self, item: int) -> Admitted:
        return Admitted(item, self.attempt(item), self._given_up.get(item, ""))

    def attempt(self, item: int) -> int:
        """Return how often the item was lost."""
        return self._attempts.get(item, 0)

    def attempts(self) -> tuple[ItemAttempt, ...]:
        """Return the attempts of unfinished items that were lost."""
        found = sorted(self._attempts.items())
        return tuple(ItemAttempt(item=item, attempt=attempt) for item, attempt in found)

    def finish(self, items: Iterable[int]) -> None:
        """Note that `items` are durable."""
        for item in items:
            self._ahead.add(item)
            if self._attempts.pop(item, None) is not None:
                self._forget(item)
        while self._oldest in self._ahead:
            self._ahead.remove(self._oldest)
            self._oldest += 1

    def _forget(self, item: int) -> None:
        """It was lost once, and does not matter any more."""
        self._away.discard(item)
        self._ready.discard(item)
        self._given_up.pop(item, None)
        self._kills = {key: kills for key, kills in self._kills.items() if key[0] != item}
        if self._trial and self._trial[0] == item:
            self._trial = None

    # --- what is lost ---

    def under_way(self) -> Mapping[int, int]:
        """Return item -> attempt of what is admitted and not finished, at most a window."""
        return {item: self.attempt(item) for item in self.unfinished() if item not in self._away}

    def unfinished(self) -> Sequence[int]:
        """Return the items that are admitted and not finished, at most a window of them."""
        return [item for item in range(self._oldest, self._next) if item not in self._ahead]

    def lose(self, items: Iterable[int]) -> dict[int, int]:
        """Note that `items` are lost, and return the attempts they will come in, after `retry`."""
        attempts = {item: self.attempt(item) + 1 for item in items}
        self._attempts |= attempts
        self._away |= attempts.keys()
        if self._trial and self._trial[0] in attempts:
            self._trial = None
        return attempts

    def blame(self, item: int, position: int, why: str, *, alone: bool) -> str:
        """Note that a worker died while its stage at `position` ran `item`, which is lost.

        Args:
            item: that ran.
            position: of the stage.
            why: the item is given up if it is.
            alone: try it before anything else.

        Returns:
            Why the item is given up now; "" if it is not.
        """
        kills = self._kills[item, position] = self._kills.get((item, position), 0) + 1
        if kills >= MAX_KILLS and item not in self._given_up:
            self._given_up[item] = why
            return why
        if alone and item not in self._given_up:
            self._alone.append((item, position))
        return ""

    def is_given_up(self, item: int) -> bool:
        """Whether it has killed too often."""
        return item in self._given_up

    def retry(self, items: Iterable[int]) -> None:
        """Nothing of the older attempts of these lost items is left: they may be admitted."""
        self._ready.update(item for item in items if item in self._away)

    def passed(self, item: int, attempt: int, position: int) -> None:
        """The stage at `position` is done with an item that was admitted again."""
        if attempt != self.attempt(item):
            return
        self._kills.pop((item, position), None)
        if self._trial and self._trial[0] == item and position >= self._trial[1]:
            self._trial = None

    def _next_trial(self) -> None:
        """Take the next item to be tried alone; one that is not free yet is waited for."""
        while self._alone and self._alone[0][0] not in self._away:
            self._alone.popleft()  # it is finished meanwhile
        if self._alone and self._alone[0][0] in self._ready:
            self._trial = self._alone.popleft()

    # --- progress ---

    @property
    def oldest(self) -> int:
        """The oldest item that is not finished."""
        return self._oldest

    def finished_ahead(self) -> tuple[int, ...]:
        """Return the finished items that are newer than the oldest unfinished one."""
        return tuple(sorted(self._ahead))

    @property
    def all_finished(self) -> bool:
        """Whether nothing is left to do."""
        return self._oldest >= self.num_items

    @property
    def is_drained(self) -> bool:
        """Whether all that was admitted is finished, and nothing more is to be."""
        return self.is_draining and self._next >= self._limit and self._oldest >= self._next
