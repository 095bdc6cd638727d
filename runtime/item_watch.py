"""Whether a worker gets on with what it runs, from its heartbeats. Pure bookkeeping."""

from __future__ import annotations

from dataclasses import dataclass

from ipc.messages import Heartbeat

SLOWEST_TIMES = 20  # so much longer than the slowest so far may an item take
AT_LEAST_S = 60.0


@dataclass(frozen=True, slots=True)
class Stuck:
    """An item in `run` with neither end nor progress."""

    item: int
    waited_s: float


class ItemWatch:
    """One worker, over all its incarnations.

    Times are the worker's own: those in which its supervisor was stopped do not matter.
    """

    def __init__(self, limit_s: float | None) -> None:
        """`limit_s`: how long an item may run without progress; None: by the slowest so far."""
        self._limit_s = limit_s
        self._slowest_s = 0.0
        self._run: tuple[int, int, int] | None = None  # incarnation, item, attempt
        self._running_s = self._since_s = self._progress = 0.0

    @property
    def limit_s(self) -> float:
        """How long an item may run without progress."""
        if self._limit_s is not None:
            return self._limit_s
        return max(AT_LEAST_S, SLOWEST_TIMES * self._slowest_s)

    def took(self, seconds: float) -> None:
        """Something like an item took so long: the run of `prepare`."""
        self._slowest_s = max(self._slowest_s, seconds)

    def beat(self, beat: Heartbeat) -> Stuck | None:
        """Take a heartbeat; return what the worker is stuck in, if it is."""
        run = (beat.incarnation, beat.item, beat.attempt)
        if run != self._run:
            if self._run is not None and self._run[1] >= 0 and self._run[0] == beat.incarnation:
                self.took(self._running_s)
            self._run, self._since_s, self._progress = run, 0.0, beat.progress
        elif beat.progress != self._progress:
            self._since_s, self._progress = beat.running_s, beat.progress
        self._running_s = beat.running_s
        waited_s = beat.running_s - self._since_s
        return Stuck(beat.item, waited_s) if beat.item >= 0 and waited_s > self.limit_s else None
