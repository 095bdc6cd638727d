"""What a worker holds, readable from its small thread while the main thread runs a stage."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, replace

Key = tuple[int, int]  # (item, attempt)


@dataclass(frozen=True, slots=True)
class Running:
    """What the main thread is at; `item` -1 is nothing."""

    item: int = -1
    attempt: int = 0
    since: float = 0.0  # time.monotonic()
    progress: float = 0.0  # 0 to 1, as far as the stage tells
    waits_for: str = ""  # what would let the worker go on; "" while a stage runs


class Ledger:
    """The items of one worker: here (queued, running, not yet durable), or sent and unfreed."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._here: set[Key] = set()
        self._sent: dict[Key, str] = {}  # -> the worker it went to
        self._running = Running()

    def take(self, key: Key) -> None:
        """The item is here."""
        with self._lock:
            self._here.add(key)

    def start(self, key: Key) -> None:
        """The stage runs the item now."""
        with self._lock:
            self._running = Running(*key, since=time.monotonic())

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

    def send(self, key: Key, worker: str) -> None:
        """The item is on its way to `worker`."""
        with self._lock:
            self._here.discard(key)
            self._sent[key] = worker

    def freed(self, key: Key) -> None:
        """The worker it was sent to is done with it."""
        with self._lock:
            self._sent.pop(key, None)

    def drop(self, key: Key) -> None:
        """The item is no longer held here, and nobody will say that it has let go of it."""
        with self._lock:
            self._here.discard(key)

    def clear(self) -> None:
        """The job is over."""
        with self._lock:
            self._here.clear()
            self._sent.clear()
            self._running = Running()

    def running(self) -> Running:
        """Return what the main thread is at."""
        with self._lock:
            return self._running

    def num_here(self) -> int:
        """Return how many items are queued, running or not yet durable here."""
        with self._lock:
            return len(self._here)

    def held(self, *, dead: str) -> list[Key]:
        """Return the items that survive the death of worker `dead`, as far as we know."""
        with self._lock:
            sent = {key for key, worker in self._sent.items() if worker != dead}
            return sorted(self._here | sent)
