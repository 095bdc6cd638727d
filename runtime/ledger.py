"""How far items have come in a worker, readable from its small thread while a stage runs.

An entry stays after its item was sent on, until the admission window has passed it: when a worker
dies, the living say how far each item got, and the one that is furthest along is right. Those
before it may not have heard yet that an item was let go of.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace

from ipc.records import ItemPlace

HERE = ""  # as the worker an item went to
NOWHERE = "-"  # likewise: to one that died

Place = tuple[int, int, str]  # attempt, position in the path, worker it went to


@dataclass(frozen=True, slots=True)
class Running:
    """What the main thread is at; `item` -1 is nothing."""

    item: int = -1
    attempt: int = 0
    since: float = 0.0  # time.monotonic()
    progress: float = 0.0  # 0 to 1, as far as the stage tells
    waits_for: str = ""  # what would let the worker go on; "" while a stage runs


class Ledger:
    """The items of one worker: here (queued, running, not yet durable), or sent on."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._places: dict[int, Place] = {}
        self._num_here = 0
        self._newest = -1
        self._window = 1
        self._dead: dict[str, int] = {}  # -> the incarnation that died last
        self._met: dict[str, int] = {}  # -> the incarnation that was met last
        self._running = Running()

    def open(self, window: int) -> None:
        """A job begins, of which at most `window` items are under way.

        Who is dead stays dead: that may be known before the job is open.
        """
        self._window = window

    def take(self, item: int, attempt: int, position: int) -> None:
        """The item is here, for the stage at `position`."""
        with self._lock:
            self._put(item, (attempt, position, HERE))
            if item > self._newest:
                self._newest = item
                if len(self._places) > 4 * self._window:
                    self._forget_finished()

    def send(self, item: int, attempt: int, position: int, worker: str) -> bool:
        """The item is about to go to `worker`; False: that one is dead, the item stays here."""
        with self._lock:
            if worker in self._dead:
                return False
            self._put(item, (attempt, position, worker))
            return True

    def _put(self, item: int, place: Place) -> None:
        before = self._places.get(item)
        self._num_here += (place[2] == HERE) - (before is not None and before[2] == HERE)
        self._places[item] = place

    def drop(self, item: int) -> None:
        """Nothing is to be said of the item any more."""
        with self._lock:
            self._drop(item)

    def _drop(self, item: int) -> None:
        place = self._places.pop(item, None)
        self._num_here -= place is not None and place[2] == HERE

    def _forget_finished(self) -> None:
        """An item is admitted when all that are older by a window are finished."""
        oldest = self._newest - self._window
        for item in [item for item in self._places if item <= oldest]:
            self._drop(item)

    def drop_older(self, attempts: Mapping[int, int]) -> None:
        """Attempts of items before these are no longer held here."""
        with self._lock:
            for item, attempt in attempts.items():
                if item in self._places and self._places[item][0] < attempt:
                    self._drop(item)

    # --- what runs ---

    def start(self, item: int, attempt: int) -> None:
        """The stage runs the item now."""
        with self._lock:
            self._running = Running(item, attempt, since=time.monotonic())

    def tell(self, fraction: float) -> None:
        """The stage has done `fraction` of the running item."""
        with self._lock:
            running = self._running
            self._running = replace(running, progress=fraction)

    def stop(self) -> None:
        """Nothing runs."""
        with self._lock:
            self._running = Running()

    def wait(self, what: str) -> None:
        """Nothing runs, and `what` is missing."""
        with self._lock:
            self._running = Running(waits_for=what)

    def running(self) -> Running:
        """Return what the main thread is at."""
        with self._lock:
            return self._running

    # --- the job and its workers ---

    def clear(self) -> None:
        """The job is over."""
        with self._lock:
            self._places.clear()
            self._dead.clear()
            self._met.clear()
            self._num_here, self._newest = 0, -1
            self._running = Running()

    def num_here(self) -> int:
        """Return how many items are queued, running or not yet durable here."""
        with self._lock:
            return self._num_here

    def lose(self, worker: str, incarnation: int) -> None:
        """`worker` is dead: what went to it is nowhere now, and nothing more goes there.

        The small thread may be told late, when it is back already.
        """
        with self._lock:
            if incarnation < self._met.get(worker, -1):
                return
            self._dead[worker] = max(incarnation, self._dead.get(worker, incarnation))
            for item, (attempt, position, sent_to) in self._places.items():
                if sent_to == worker:
                    self._places[item] = (attempt, position, NOWHERE)

    def meet(self, worker: str, incarnation: int) -> bool:
        """`worker` is back, unless this incarnation is known to be dead too: return whether."""
        with self._lock:
            if self._dead.get(worker, -1) >= incarnation:
                return False
            self._dead.pop(worker, None)
            self._met[worker] = incarnation
            return True

    def places(self) -> tuple[ItemPlace, ...]:
        """Return how far each item has come, as far as we know."""
        with self._lock:
            places = dict(self._places)
        return tuple(
            ItemPlace(item=item, attempt=attempt, position=position, worker=worker)
            for item, (attempt, position, worker) in sorted(places.items())
        )
