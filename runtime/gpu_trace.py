"""When the copies of each run on a GPU began and ended, for the trace.

Copies go on beside runs, so they have tracks of their own. Times are those at which a waiter's
thread was woken, some 20 us late; a copy begins when it is queued, or when the one before it is
done.
"""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass

from ipc.cuda import CudaError, Event
from runtime.trace import COPY_IN, COPY_OUT, Recorder
from runtime.worker_gpu import WorkerGpu


@dataclass(slots=True)
class _Times:
    """Of one run; 0: there was nothing to copy, or it is not done."""

    item: int
    queued: float
    arrived: float = 0.0
    computed: float = 0.0

    def arrive(self, _error: CudaError | None) -> None:
        """Called in the thread that waits for copies in."""
        self.arrived = time.monotonic()

    def compute(self, _error: CudaError | None) -> None:
        """Called in the thread that waits for runs."""
        self.computed = time.monotonic()


class CopyTimes:
    """Belongs to the main thread, from a job's opening to its end."""

    def __init__(self, gpu: WorkerGpu, trace: Recorder) -> None:
        self._gpu, self._trace = gpu, trace
        self._under_way: deque[_Times] = deque()
        self._last_arrived = self._last_left = 0.0

    def begin(self, item: int, arrived: Event | None) -> None:
        """A run is queued; `arrived` is the end of its copies in, if there are any."""
        times = _Times(item, time.monotonic())
        self._under_way.append(times)
        if arrived is not None:
            self._gpu.note_arrival(arrived, times.arrive)

    def leave(self, computed: Event) -> None:
        """Copies out of the run that was queued last begin with this event."""
        self._gpu.note(computed, self._under_way[-1].compute)

    def end(self) -> None:
        """The oldest run is done."""
        times, now = self._under_way.popleft(), time.monotonic()
        if times.arrived:
            began = max(times.queued, self._last_arrived)
            self._last_arrived = times.arrived
            self._trace.copied(COPY_IN, times.item, min(began, times.arrived), times.arrived)
        if times.computed:
            began = max(times.computed, self._last_left)
            self._last_left = now
            self._trace.copied(COPY_OUT, times.item, began, now)
