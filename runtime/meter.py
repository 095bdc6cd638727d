"""What a job costs one worker, counted by its main thread and read by its small one."""

from __future__ import annotations

import resource
import sys
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass

from ipc.records import JobUsage, LinkStats
from runtime.transports import HOST, LOCAL
from runtime.usage import max_rss_bytes


@dataclass(slots=True)
class _Taken:
    """What was taken from one peer."""

    items: int = 0
    bytes: int = 0
    wait_s: float = 0.0


class Meter:
    """Counts from `start` to the next `start`. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._gpu_peak_bytes = 0
        self.start(0, "", "")

    def start(
        self,
        job: int,
        worker: str,
        last_stage: str,
        *,
        transports: Mapping[str, str] | None = None,
        gpu_bytes: int = 0,
    ) -> None:
        """Begin anew: a job is open.

        Args:
            job: its number.
            worker: whose counts these are.
            last_stage: after it items leave this worker.
            transports: how the tensors of each worker get here; of others it is host memory.
            gpu_bytes: what pools and copies take of the GPU, beside torch.
        """
        with self._lock:
            self._job = job
            self._worker, self._last_stage = worker, last_stage
            self._transports, self._gpu_bytes = {worker: LOCAL, **(transports or {})}, gpu_bytes
            self._items = 0
            self._busy_s = 0.0
            self._running_since: float | None = None
            self._taken: dict[str, _Taken] = {}
            self._began = resource.getrusage(resource.RUSAGE_SELF)

    def took(self, sender: str, *, waited_s: float, nbytes: Mapping[str, int]) -> None:
        """An item came from `sender`; its tensors of `nbytes` were written by these workers."""
        with self._lock:
            link = self._taken.setdefault(sender, _Taken())
            link.items += 1
            link.wait_s += waited_s
            for owner, number in nbytes.items():
                self._taken.setdefault(owner, _Taken()).bytes += number

    def run(self, began: float) -> None:
        """A stage runs since `began`, time.monotonic()."""
        self._running_since = began

    def ran(self, stage: str, took_s: float) -> None:
        """It has run for `took_s`."""
        with self._lock:
            self._running_since = None
            self._busy_s += took_s
            self._items += stage == self._last_stage

    def usage(self) -> JobUsage:
        """Return the counts by now; an item that is running counts as far as it is."""
        now = resource.getrusage(resource.RUSAGE_SELF)
        with self._lock:
            since = self._running_since
            running_s = time.monotonic() - since if since is not None else 0.0
            return JobUsage(
                job=self._job,
                items=self._items,
                busy_s=self._busy_s + running_s,
                cpu_user_s=now.ru_utime - self._began.ru_utime,
                cpu_system_s=now.ru_stime - self._began.ru_stime,
                max_rss_bytes=max_rss_bytes(),
                gpu_peak_bytes=self._peak_of_gpu(),
                links=tuple(self._link(*one) for one in sorted(self._taken.items())),
            )

    def _peak_of_gpu(self) -> int:
        torch = sys.modules.get("torch")  # only if a stage has brought it, and all of it
        cuda = getattr(torch, "cuda", None)
        if cuda is not None and hasattr(cuda, "is_initialized") and cuda.is_initialized():
            with suppress(RuntimeError):  # a GPU that is lost tells nothing; the heart goes on
                self._gpu_peak_bytes = int(cuda.max_memory_allocated()) + self._gpu_bytes
        return self._gpu_peak_bytes

    def _link(self, peer: str, taken: _Taken) -> LinkStats:
        return LinkStats(
            peer=peer,
            transport=self._transports.get(peer, HOST),
            items=taken.items,
            bytes=taken.bytes,
            wait_s=taken.wait_s,
        )
