"""The trace of one run: the memory that workers trace to, and `trace.json` at the end of it."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from contextlib import AbstractContextManager, closing
from pathlib import Path
from types import TracebackType

from ipc.errors import NoMemory
from ipc.host import HostPool, MappedPool
from ipc.records import PoolAddress
from runtime.atomic import atomic_file
from runtime.errors import PlanError
from runtime.trace import MAX_RECORDS, Recorder, Traced, read_trace, trace_bytes
from runtime.trace_json import Scene, Track, write_events

RUN_TRACK = "run"
SECTION = 1 << 32  # between the processes of two sections
RESTART = 1 << 25  # between the tracks of two incarnations; past those of copies


class RunTrace:
    """Owns the memory from `open` to `close`: what a dead worker wrote is there until then."""

    def __init__(
        self, *, enabled: bool, max_records: int = MAX_RECORDS, began: float | None = None
    ) -> None:
        """Begin; the trace's clock is at 0 now, or was at `began`.

        Args:
            enabled: else nothing is traced and no file written.
            max_records: of one worker, over all of its incarnations.
            began: time.monotonic().
        """
        self._enabled, self._max_records = enabled, max_records
        self._began = time.monotonic() if began is None else began
        self._own = Recorder()
        self._pools: dict[str, HostPool] = {}  # of the last incarnation of each worker
        self._earlier: dict[str, list[Traced]] = {}  # of those before it, which are dead

    def step(self, what: str) -> AbstractContextManager[None]:
        """A slice of the run's own track, as long as the block."""
        return self._own.step(what)

    def open(self, worker: str, name: str) -> tuple[PoolAddress, ...]:
        """Make the memory of a worker, and return where it is: nowhere if this is not enabled.

        Args:
            worker: whose it is; what an earlier incarnation wrote, which is dead, is kept.
            name: of the memory.

        Raises:
            PlanError: the host has no memory for it.
        """
        if not self._enabled:
            return ()
        if worker in self._pools:  # kept as it is used; pools would be descriptors that pile up
            with closing(self._pools.pop(worker)) as pool:
                self._earlier.setdefault(worker, []).append(self._read(pool.address))
        num_earlier = sum(len(records) for _names, records in self._earlier.get(worker, ()))
        if num_earlier >= self._max_records:
            return ()
        nbytes = trace_bytes(self._max_records - num_earlier)
        try:
            pool = HostPool(name, owner=worker, num_slots=1, slot_bytes=nbytes)
        except NoMemory as error:
            raise PlanError(f"{error}; `run.trace: false` does without it") from error
        self._pools[worker] = pool
        return (pool.address,)

    def write(
        self, path: Path, title: str, workers: Iterable[tuple[str, str, int]], *, number: int = 0
    ) -> list[str]:
        """Write what there is by now, if `open` made room for it; return what there is to warn of.

        Args:
            path: of the file.
            title: of the whole.
            workers: name, device and process of each.
            number: of the section, so that those of one run can be in one file.

        Raises:
            OSError: it cannot be written, and is not there.
        """
        if not (self._pools or self._earlier):
            return []
        process = os.getpid() + number * SECTION
        tracks = [Track(RUN_TRACK, process, self._own.read(), is_full=False)]
        for name, device, pid in workers:
            every = [*self._earlier.get(name, ()), *self._last(name)]
            num_records = sum(len(records) for _names, records in every)
            for restarts, traced in enumerate(every):
                restart = f", restart {restarts}" if restarts else ""
                is_full = num_records >= self._max_records and restarts == len(every) - 1
                tid = pid + restarts * RESTART
                tracks.append(Track(f"{name} {device}{restart}", tid, traced, is_full))
        # After all was read: workers that live may have gone on until then.
        arrows = f"item {number}" if number else "item"
        ended = time.monotonic()
        scene = Scene(title, pid=process, began=self._began, ended=ended, arrows=arrows)
        with atomic_file(path, sync=False) as file:
            write_events(file, scene, tracks)
        return [
            f"{path.name}: {track.name} did more than the {self._max_records} slices in it"
            for track in tracks
            if track.is_full
        ]

    def _last(self, worker: str) -> list[Traced]:
        """Return what the last incarnation wrote by now, if it has memory for it."""
        return [self._read(self._pools[worker].address)] if worker in self._pools else []

    def _read(self, address: PoolAddress) -> Traced:
        with MappedPool(address, writable=False) as mapped:
            names, records = read_trace(mapped.array())
        return names, records[records["begin"] >= self._began]  # not what a plan before it took

    def close(self) -> None:
        """Give the memory up. Safe to call twice."""
        for pool in self._pools.values():
            pool.close()
        self._pools.clear()
        self._earlier.clear()

    def __enter__(self) -> RunTrace:
        """Return the trace."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Give the memory up."""
        self.close()
