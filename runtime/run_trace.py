"""The trace of one run: the memory that workers trace to, and `trace.json` at the end of it."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from contextlib import AbstractContextManager, ExitStack
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


class RunTrace:
    """Owns the memory from `open` to `close`: what a dead worker wrote is there until then."""

    def __init__(self, *, enabled: bool, max_records: int = MAX_RECORDS) -> None:
        """Begin; the trace's clock is at 0 now.

        Args:
            enabled: else nothing is traced and no file written.
            max_records: of one worker.
        """
        self._enabled, self._max_records = enabled, max_records
        self._began = time.monotonic()
        self._own = Recorder()
        self._pools: dict[str, list[HostPool]] = {}  # one for each incarnation of a worker
        self._exit = ExitStack()

    def step(self, what: str) -> AbstractContextManager[None]:
        """A slice of the run's own track, as long as the block."""
        return self._own.step(what)

    def open(self, worker: str, name: str) -> tuple[PoolAddress, ...]:
        """Make the memory of a worker, and return where it is: nowhere if this is not enabled.

        Args:
            worker: whose it is; that of an earlier incarnation stays.
            name: of the memory.

        Raises:
            PlanError: the host has no memory for it.
        """
        if not self._enabled:
            return ()
        nbytes = trace_bytes(self._max_records)
        try:
            pool = HostPool(name, owner=worker, num_slots=1, slot_bytes=nbytes)
        except NoMemory as error:
            raise PlanError(f"{error}; `run.trace: false` does without it") from error
        self._exit.callback(pool.close)
        self._pools.setdefault(worker, []).append(pool)
        return (pool.address,)

    def write(self, path: Path, title: str, workers: Iterable[tuple[str, str, int]]) -> list[str]:
        """Write what there is by now, if `open` made room for it; return what there is to warn of.

        Args:
            path: of the file.
            title: of the whole.
            workers: name, device and process of each.

        Raises:
            OSError: it cannot be written, and is not there.
        """
        if not self._pools:
            return []
        tracks = [Track(RUN_TRACK, os.getpid(), self._own.read(), is_full=False)]
        for name, device, pid in workers:
            for number, pool in enumerate(self._pools.get(name, ())):
                traced = self._read(pool.address)
                is_full = len(traced[1]) == self._max_records
                restart = f", restart {number}" if number else ""
                tracks.append(Track(f"{name} {device}{restart}", pid, traced, is_full))
        # After all was read: workers that live may have gone on until then.
        scene = Scene(title, pid=os.getpid(), began=self._began, ended=time.monotonic())
        with atomic_file(path, sync=False) as file:
            write_events(file, scene, tracks)
        return [
            f"{path.name}: {track.name} did more than the {self._max_records} slices in it"
            for track in tracks
            if track.is_full
        ]

    def _read(self, address: PoolAddress) -> Traced:
        with MappedPool(address, writable=False) as mapped:
            names, records = read_trace(mapped.array())
        return names, records[records["begin"] >= self._began]  # not what a plan before it took

    def close(self) -> None:
        """Give the memory up. Safe to call twice."""
        self._exit.close()
        self._pools.clear()

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
