"""What a run did, as report.json says it and as one line says it.

The names are an interface: others read these files. More may be added, none is ever changed.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import msgspec

from runtime.atomic import write_atomically
from runtime.errors import RunInterrupted, RunpipeError
from runtime.host import Host

Status = Literal["done", "failed", "interrupted"]

_VERBS = {"scene cuts": "repeated"}  # what became of the things that are counted


class _Part(msgspec.Struct, frozen=True, kw_only=True):
    pass


class ItemCounts(_Part, frozen=True):
    """Items of the run."""

    done: int
    failed: int = 0
    replayed: int = 0  # admitted again after a death


class UnitCounts(_Part, frozen=True):
    """The same in what users count."""

    name: str  # "frame pairs"
    done: int
    failed: int = 0


class Failure(_Part, frozen=True):
    """One reason why the run is not whole."""

    reason: str
    item: int | None = None  # None: it was no item's fault
    stage: str = ""
    worker: str = ""
    traceback: str = ""
    section: str = ""  # of a pipeline in sections: `item` is one of its items


class Hang(_Part, frozen=True):
    """A worker that no longer got on, and was replaced."""

    worker: str
    what: str  # "no heartbeat", "no progress with item 3"
    waited_s: float
    item: int | None = None  # that it was at
    stacks: dict[str, str] = {}  # worker -> what its threads were doing, or why that is not known


class WorkerReport(_Part, frozen=True):
    """What one worker did, over all of its incarnations."""

    name: str  # "denoise/0"
    stages: tuple[str, ...]
    device: str  # "cpu", "cuda:1"
    pid: int  # of the last incarnation
    items: int = 0
    busy_s: float = 0.0
    cpu_user_s: float = 0.0
    cpu_system_s: float = 0.0
    max_rss_bytes: int = 0
    gpu_peak_bytes: int = 0
    gpu_utilization: float | None = None  # share of time its GPU ran kernels, whoever's
    restarts: int = 0


class LinkReport(_Part, frozen=True):
    """What went from one worker to another."""

    sender: str = msgspec.field(name="from")
    receiver: str = msgspec.field(name="to")
    transport: str  # "local", "host", "cuda-view", "cuda-copy"
    items: int = 0
    bytes: int = 0  # of the tensors that were read
    wait_s: float = 0.0  # the receiver was idle until an item came from here


class ConfigReport(_Part, frozen=True):
    """Which configuration it was; the run directory has it whole."""

    path: str  # "" if it was made in Python
    sha256: str  # of the text with every default


class ResumedReport(_Part, frozen=True):
    """What a resumed run found done."""

    items: int  # that were durable already
    runs: int  # earlier ones, of which this is the end


class ResidencyReport(_Part, frozen=True):
    """How the sections of a pipeline shared the memory of the devices."""

    mode: Literal["resident", "phased"]
    why: str
    switches: int = 0  # from one section's models to the next one's
    switch_s: float = 0.0  # in all, from the end of a section to the first item of the next


class Report(_Part, frozen=True):
    """A whole run; one that was resumed has the items of all of it, and the times of the last."""

    status: Status
    pipeline: str
    items: ItemCounts
    units: UnitCounts
    wall_s: float = 0.0  # all of it
    load_s: float = 0.0  # until the first item was admitted
    run_s: float = 0.0  # from then on
    warm_units_per_s: float = 0.0  # after the first item was written
    started_at: str = ""  # "2025-03-01T10:00:00Z"
    ended_at: str = ""
    input: str = ""
    output: str = ""
    counts: dict[str, int] = {}  # {"scene cuts": 1}
    weights: tuple[str, ...] = ()  # what there is to say of them: "random:0: untrained"
    warnings: tuple[str, ...] = ()
    failures: tuple[Failure, ...] = ()
    hangs: tuple[Hang, ...] = ()
    workers: tuple[WorkerReport, ...] = ()
    links: tuple[LinkReport, ...] = ()
    fingerprint: dict[str, object] = {}  # what the results depend on
    changed: tuple[str, ...] = ()  # of the fingerprint, since the run that was resumed
    resumed: ResumedReport | None = None
    config: ConfigReport | None = None
    versions: dict[str, str] = {}
    host: Host | None = None
    residency: ResidencyReport | None = None  # of a pipeline in sections
    sections: dict[str, Report] = {}  # likewise; the items above are those of all of them


def write_report(path: Path, report: Report) -> None:
    """Write `report` as JSON, whole or not at all.

    Raises:
        OSError: the folder cannot be written, or the disk is full.
    """
    text = msgspec.json.format(msgspec.json.encode(report), indent=2)
    write_atomically(path, text + b"\n")


def load_report(path: Path) -> Report:
    """Read a report, also one of a later version with more in it.

    Raises:
        RunpipeError: it is missing, or no report.
    """
    try:
        return _decoder.decode(path.read_bytes())
    except OSError as error:
        raise RunpipeError(f"{path}: no report: {error.strerror}") from error
    except msgspec.MsgspecError as error:
        raise RunpipeError(f"{path}: is no report: {error}") from error


def summary_line(report: Report) -> str:
    """Return what people want to know first.

    "47 frame pairs in 12.3 s (4.1 a second after loading in 3.2 s) -> out.mp4; 2 items replayed"
    """
    units = report.units
    took = (
        f"{_counted(units.done, units.name)} in {report.wall_s:.1f} s "
        f"({report.warm_units_per_s:.1f} a second after loading in {report.load_s:.1f} s)"
    )
    line = took if report.status == "done" else f"{report.status} after {took}"
    if report.output and report.status != "interrupted":
        line += f" -> {report.output}"
    return "; ".join([line, *_remarks(report)])


def status_of(error: BaseException | None) -> Status:
    """Return how a run that ended with this error is called."""
    if error is None:
        return "done"
    return "interrupted" if isinstance(error, RunInterrupted) else "failed"


def incomplete_text(report: Report) -> str:
    """Return why a run that went to its end is not whole: "2 of 9 items failed; ..."."""
    items, reason = report.items, report.failures[0].reason
    if not items.done:
        return f"none of {_counted(items.failed, 'items')} could be done; {reason}"
    failed = f"{items.failed} of {_counted(items.done + items.failed, 'items')} failed"
    written = f"what could be done is in {report.output}"
    return "; ".join([failed, reason, written] if items.failed else [reason, written])


def _remarks(report: Report) -> list[str]:
    counts = {name: number for name, number in report.counts.items() if name != report.units.name}
    remarks = [
        " ".join(filter(None, (_counted(number, name), _VERBS.get(name))))
        for name, number in counts.items()
        if number
    ]
    if report.units.failed:
        remarks.append(f"{_counted(report.units.failed, report.units.name)} failed")
    if report.resumed and report.resumed.items:
        remarks.append(f"{_counted(report.resumed.items, 'items')} of earlier runs taken over")
    if report.items.replayed:
        restarts = sum(worker.restarts for worker in report.workers)
        after = f" after {_counted(restarts, 'restarts')}" if restarts else ""
        remarks.append(f"{_counted(report.items.replayed, 'items')} replayed{after}")
    if report.status != "done" and report.failures:
        remarks.append(report.failures[0].reason)
    return remarks


def _counted(number: int, name: str) -> str:
    return f"{number} {name.removesuffix('s') if number == 1 else name}"


_decoder = msgspec.json.Decoder(Report)
