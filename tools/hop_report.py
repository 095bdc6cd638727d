"""What tools/bench_hop.py found: figures from stamps, targets, the table and the JSON."""

from __future__ import annotations

import os
import platform
import shlex
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import median

import numpy as np

from tools.hop_others import PickleQueue, TorchQueue
from tools.hop_ours import Runpipe
from tools.hop_pair import SLOTS, WARM_UP, Contender, Stamps

OURS = Runpipe.name
KIB, MIB = 2**10, 2**20
ALONE = 0  # as a size: the message alone
RATIO_TARGETS = (
    (4 * MIB, PickleQueue.name, 10.0),
    (4 * MIB, TorchQueue.name, 4.0),
    (64 * MIB, TorchQueue.name, 2.0),
)
LATENCY_TARGETS_US = {"p50": 60.0, "p99": 500.0}  # of the message alone
LIBRARIES = ("numpy", "pyzmq", "msgspec", "av", "torch", "triton", "cuda-bindings", "ray")
PROJECT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True, slots=True)
class Run:
    """One repetition."""

    items: int  # counted
    items_per_s: float
    p50_us: float  # from sent to received and touched
    p99_us: float

    @classmethod
    def of(cls, stamps: Stamps) -> Run:
        """Work out the figures of one repetition, without its first items."""
        sent, done = np.array(stamps[WARM_UP:]).T
        p50, p99 = np.percentile((done - sent) / 1e3, (50, 99))
        return cls(
            items=len(done),
            items_per_s=float((len(done) - 1) / (done[-1] - done[0]) * 1e9),
            p50_us=float(p50),
            p99_us=float(p99),
        )


@dataclass(frozen=True, slots=True)
class Result:
    """What a contender does with items of one size: medians of its repetitions."""

    size: int  # bytes; 0 is the message alone
    contender: str
    copies: int
    items_per_s: float
    gb_per_s: float
    p50_us: float
    p99_us: float
    ours_is: float  # items/s of ours over these, the median of the repetitions' ratios
    runs: tuple[Run, ...]

    @classmethod
    def of(
        cls, size: int, kind: type[Contender], runs: Sequence[Run], ours: Iterable[Run]
    ) -> Result:
        """Sum up the repetitions of one contender, which ran beside those of `ours`."""
        items_per_s = median(run.items_per_s for run in runs)
        ratios = [a.items_per_s / b.items_per_s for a, b in zip(ours, runs, strict=True)]
        return cls(
            size=size,
            contender=kind.name,
            copies=kind.copies,
            items_per_s=items_per_s,
            gb_per_s=items_per_s * size / 1e9,
            p50_us=median(run.p50_us for run in runs),
            p99_us=median(run.p99_us for run in runs),
            ours_is=median(ratios),
            runs=tuple(runs),
        )


@dataclass(frozen=True, slots=True)
class Target:
    """What one hop shall reach."""

    what: str
    wanted: float
    measured: float
    passed: bool


def targets(results: Iterable[Result]) -> list[Target]:
    """Judge what was measured; what was not has no target."""
    found = {(result.size, result.contender): result for result in results}
    judged = []
    for size, other, wanted in RATIO_TARGETS:
        if result := found.get((size, other)):
            what = f"{show_size(size)}: items/s over those of the {other}, at least"
            judged.append(Target(what, wanted, result.ours_is, result.ours_is >= wanted))
    if ours := found.get((ALONE, OURS)):
        for name, wanted in LATENCY_TARGETS_US.items():
            measured = getattr(ours, f"{name}_us")
            what = f"message alone: {name} in us, at most"
            judged.append(Target(what, wanted, measured, measured <= wanted))
    return judged


def show_size(nbytes: int) -> str:
    """Return "64 KiB"."""
    if nbytes == ALONE:
        return "message alone"
    for unit, name in ((MIB, "MiB"), (KIB, "KiB")):
        if nbytes % unit == 0:
            return f"{nbytes // unit} {name}"
    return f"{nbytes} B"


def table(results: Sequence[Result], judged: Sequence[Target], notes: Sequence[str]) -> str:
    """Return everything for reading."""
    head = f"{'size':14}{'contender':14}{'items/s':>10}{'GB/s':>8}{'p50':>11}{'p99':>11}"
    lines = [f"{head}{'copies':>8}  items/s of {OURS} over these"]
    for size in dict.fromkeys(result.size for result in results):
        for row in (result for result in results if result.size == size):
            gb_per_s = f"{row.gb_per_s:8.2f}" if size else f"{'-':>8}"
            copies = f"{row.copies:8}" if size else f"{'-':>8}"
            times = f"{_show_us(row.p50_us):>11}{_show_us(row.p99_us):>11}"
            ratio = "" if row.contender == OURS else f"{row.ours_is:8.1f} x"
            lines.append(
                f"{show_size(size):14}{row.contender:14}{row.items_per_s:10.0f}{gb_per_s}{times}"
                f"{copies}{ratio}"
            )
        lines.append("")
    lines += [
        f"p50, p99: one way, from sent to received and touched, {SLOTS} items under way;",
        "message alone: one item under way, no byte of it touched.",
        "",
    ]
    for one in judged:
        word = "pass" if one.passed else "MISS"
        lines.append(f"{word}  {one.what} {one.wanted:g}: {one.measured:.1f}")
    return "\n".join([*lines, *(f"note: {note}" for note in notes)])


def _show_us(value: float) -> str:
    return f"{value:.1f} us" if value < 1000 else f"{value / 1000:.2f} ms"


def circumstances() -> dict[str, object]:
    """Return when, where and how this was run."""
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": shlex.join(sys.orig_argv),
        "commit": commit(),
        "hardware": {
            "cpu": _field(Path("/proc/cpuinfo"), "model name"),
            "cores": len(os.sched_getaffinity(0)),
            "memory": _field(Path("/proc/meminfo"), "MemTotal"),
            "load_average": os.getloadavg(),  # of what else runs
        },
        "versions": {
            "python": platform.python_version(),
            "linux": platform.release(),
            **_versions(),
        },
    }


def commit() -> str:
    """Return the commit that was measured, with a "+" if files differ from it; "" if unknown."""
    git = ("git", "-C", str(PROJECT))
    try:
        head = subprocess.run((*git, "rev-parse", "HEAD"), capture_output=True, text=True)
        status = subprocess.run((*git, "status", "--porcelain"), capture_output=True, text=True)
    except FileNotFoundError:  # no git
        return ""
    return head.stdout.strip() + ("+" if status.stdout else "")


def _versions() -> Mapping[str, str]:
    found = {}
    for library in LIBRARIES:
        try:
            found[library] = version(library)
        except PackageNotFoundError:
            found[library] = "not installed"
    return found


def _field(path: Path, name: str) -> str:
    lines = (line.partition(":") for line in path.read_text().splitlines())
    return next((value.strip() for key, _colon, value in lines if key.strip() == name), "")
