"""What the sections of one run come to together: how it looks, who is who, report and trace."""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec

from runtime.atomic import atomic_file
from runtime.config import PipelineConfig, dump_config
from runtime.errors import RunIncomplete, RunInterrupted
from runtime.fingerprint import text_sha256
from runtime.live import RUNNING, STARTING, STOPPING, Live, Snapshot
from runtime.report import (
    ConfigReport,
    Failure,
    ItemCounts,
    Report,
    ResidencyReport,
    ResumedReport,
    Status,
    UnitCounts,
)
from runtime.residency import LoadOrder
from runtime.run_dir import WORKERS
from runtime.stored import write_whole
from runtime.trace_json import join_events

TRACE = "trace.json"


class JoinedLive:
    """All sections as one run to look at, from any thread."""

    def __init__(self, names: Sequence[str]) -> None:
        self._began = time.monotonic()
        self._lives: dict[str, Live | None] = dict.fromkeys(names)

    def show(self, name: str, live: Live) -> None:
        """Show section `name`, too, from now on."""
        self._lives[name] = live

    @property
    def has_items(self) -> bool:
        """Whether any section has begun to admit items."""
        return any(self.items_began(name) for name in self._lives)

    def items_began(self, name: str) -> float:
        """Return when the first item of a section was admitted, time.monotonic(); 0: never."""
        live = self._lives[name]
        return live.tally.began if live and live.tally.num_items else 0.0

    def snapshot(self) -> Snapshot:
        """Return the run as it is now."""
        shots = tuple(live.snapshot() for live in self._lives.values() if live)
        now = time.monotonic()
        phases = [shot.phase for shot in shots]
        going = [phase for phase in phases if phase != STOPPING]
        phase = RUNNING if RUNNING in going else next(iter([*going, *phases]), STARTING)
        return Snapshot(
            at=now,
            elapsed_s=now - self._began,
            phase=phase,
            unit=" + ".join(shot.unit for shot in shots if shot.unit),
            num_units=sum(shot.num_units for shot in shots),
            units_done=sum(shot.units_done for shot in shots),
            items_failed=sum(shot.items_failed for shot in shots),
            workers=tuple(worker for shot in shots for worker in shot.workers),
            sections=shots,
        )


class JoinedPids:
    """Keeps `workers.json` of the whole run: the workers of all sections. From any thread."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._lock = folder, threading.Lock()
        self._pids: dict[str, Mapping[str, int]] = {}

    def tell(self, section: str, pids: Mapping[str, int]) -> None:
        """Note who is who in a section."""
        with self._lock:
            self._pids[section] = pids
            every = {name: pid for known in self._pids.values() for name, pid in known.items()}
            write_whole(self._folder / WORKERS, json.dumps(every, indent=2).encode() + b"\n")


def joined_report(
    config: PipelineConfig,
    reports: Mapping[str, Report],
    error: BaseException | None,
    order: LoadOrder,
    live: JoinedLive,
    *,
    wall_s: float,
) -> Report:
    """Return the report of the whole run.

    Args:
        config: of the whole pipeline.
        reports: of its sections, as many as there are.
        error: what the run raises.
        order: in which they loaded.
        live: of the run.
        wall_s: all of it.
    """
    every = list(reports.values())
    last, ended = every[-1], datetime.now(UTC)
    load_s = min(one.load_s for one in every)
    return Report(
        status=_status(reports, error),
        pipeline=config.pipeline,
        items=_items(every),
        units=UnitCounts(name=last.units.name, done=last.units.done, failed=last.units.failed),
        wall_s=wall_s,
        load_s=load_s,
        run_s=wall_s - load_s,
        warm_units_per_s=last.warm_units_per_s,
        started_at=_iso(ended - timedelta(seconds=wall_s)),
        ended_at=_iso(ended),
        input=last.input,
        output=str(Path(last.output).parent),
        counts=dict(sum((Counter(one.counts) for one in every), Counter[str]())),
        weights=tuple(dict.fromkeys(said for one in every for said in one.weights)),
        warnings=tuple(dict.fromkeys(said for one in every for said in one.warnings)),
        failures=tuple(_failures(reports, error)),
        hangs=tuple(hang for one in every for hang in one.hangs),
        workers=tuple(worker for one in every for worker in one.workers),
        links=tuple(link for one in every for link in one.links),
        changed=tuple(dict.fromkeys(said for one in every for said in one.changed)),
        resumed=_resumed(reports),
        config=ConfigReport(path=str(config.path or ""), sha256=text_sha256(dump_config(config))),
        versions={name: v for one in every for name, v in one.versions.items()},
        host=last.host,
        residency=_residency(order, live),
        sections=dict(reports),
    )


def _items(reports: Sequence[Report]) -> ItemCounts:
    return ItemCounts(
        done=sum(one.items.done for one in reports),
        failed=sum(one.items.failed for one in reports),
        replayed=sum(one.items.replayed for one in reports),
    )


def _status(reports: Mapping[str, Report], error: BaseException | None) -> Status:
    if isinstance(error, RunInterrupted):
        return "interrupted"
    whole = error is None and all(one.status == "done" for one in reports.values())
    return "done" if whole else "failed"


def _failures(reports: Mapping[str, Report], error: BaseException | None) -> Iterator[Failure]:
    told = [
        msgspec.structs.replace(failure, section=name)
        for name, one in reports.items()
        for failure in one.failures
        if one.status != "interrupted" or failure.item is not None
    ]
    yield from told
    if error and not told and not isinstance(error, RunIncomplete):
        yield Failure(reason=str(error))


def _resumed(reports: Mapping[str, Report]) -> ResumedReport | None:
    found = [one.resumed for one in reports.values() if one.resumed]
    if not found:
        return None
    return ResumedReport(items=sum(r.items for r in found), runs=max(r.runs for r in found))


def _residency(order: LoadOrder, live: JoinedLive) -> ResidencyReport | None:
    if order.chosen is None:
        return None
    began = {name: live.items_began(name) for name in order.turns}
    seconds = [began[name] - turn for name, turn in order.turns.items() if began[name]]
    return ResidencyReport(
        mode="phased" if order.chosen.is_phased else "resident",
        why=order.chosen.why,
        switches=len(order.turns),
        switch_s=sum(seconds),
    )


def _iso(moment: datetime) -> str:
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def join_traces(folder: Path, names: Sequence[str]) -> None:
    """Make `trace.json` of those of the sections, which have one clock and are a process each.

    Raises:
        OSError: it cannot be written.
    """
    if traces := [path for name in names if (path := folder / name / TRACE).exists()]:
        with atomic_file(folder / TRACE, sync=False) as file:
            join_events(file, traces)
