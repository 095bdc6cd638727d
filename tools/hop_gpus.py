"""`tools/bench_hop.py --gpu`: hops between GPUs beside the copy alone, and what they shall be."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from multiprocessing import get_context
from pathlib import Path
from statistics import median
from typing import Any

import click

from runtime.host import ROOT, probe_host
from tools.bench_figures import Figure
from tools.hop_cuda import RAW_COPIES, CudaHop
from tools.hop_pair import SLOTS, WARM_UP, Pair, Stamps, Task
from tools.hop_report import MIB, Run, show_size

LARGE, SMALL = 64 * MIB, MIB
LEAST_SHARE = 0.90  # of the copy alone, with SLOTS under way
MOST_US = 150.0  # round trip of SMALL, one under way


def tasks(seconds: float, *, large: int = LARGE, small: int = SMALL) -> dict[str, Task]:
    """Return what is measured of each pair of GPUs."""
    return {
        "copy alone": Task(nbytes=large, seconds=seconds, slots=SLOTS, touch=False),
        "large": Task(nbytes=large, seconds=seconds, slots=SLOTS, touch=True),
        "small": Task(nbytes=small, seconds=seconds, slots=SLOTS, touch=True),
        "round trip": Task(nbytes=small, seconds=seconds, slots=1, touch=True),
    }


def gpu_pairs() -> tuple[list[tuple[int, int]], str]:
    """Return the pairs of GPUs to measure, and what cannot be."""
    if why := CudaHop.missing(LARGE):
        return [], why
    if len(probe_host(ROOT).gpus) < 2:
        return [(0, 0)], "there is one GPU: only hops within it"
    return [(0, 1), (0, 0)], ""


def measure_gpus(
    pairs: Sequence[tuple[int, int]], wanted: dict[str, Task], *, repetitions: int
) -> tuple[list[Figure], dict[str, Any]]:
    """Measure hops of each pair of GPUs, everything in turn; return rows and all repetitions.

    Raises:
        EndDied: a process ended, or an item came with other bytes.
    """
    mp_context = get_context("spawn")
    figures: list[Figure] = []
    details: dict[str, Any] = {}
    turns = [name for _ in range(repetitions) for name in wanted]
    for gpus in pairs:
        found: dict[str, list[Stamps]] = {name: [] for name in wanted}
        with (
            tempfile.TemporaryDirectory(prefix="rp-") as folder,
            Pair(CudaHop(mp_context, Path(folder), gpus=gpus), mp_context) as pair,
            click.progressbar(turns, label=_shown(gpus), file=sys.stderr) as bar,
        ):
            for name in bar:
                found[name].append(pair.run(wanted[name]))
        alone = [copy_gb_per_s(stamps, wanted["copy alone"]) for stamps in found["copy alone"]]
        runs = {
            name: [Run.of(one) for one in found[name]] for name in wanted.keys() - {"copy alone"}
        }
        figures += _figures(gpus, wanted, alone, runs)
        told = {name: [asdict(run) for run in each] for name, each in runs.items()}
        details[_shown(gpus)] = told | {"copy alone, GB/s": alone}
    return figures, details


def copy_gb_per_s(stamps: Stamps, task: Task) -> float:
    """Return the speed of the copy alone: the median of what was queued at once."""
    nbytes = RAW_COPIES * task.nbytes
    return median(nbytes / (ended - began) for began, ended in stamps[WARM_UP:])


def _figures(
    gpus: tuple[int, int],
    wanted: dict[str, Task],
    alone: Sequence[float],
    runs: dict[str, list[Run]],
) -> list[Figure]:
    large, small = wanted["large"].nbytes, wanted["small"].nbytes
    speeds = [run.items_per_s * large / 1e9 for run in runs["large"]]
    shares = [speed / raw for speed, raw in zip(speeds, alone, strict=True)]
    are_two = gpus[0] != gpus[1]
    shown, at_once = _shown(gpus), f"{SLOTS} in flight"
    least, most = (LEAST_SHARE, MOST_US) if are_two else (None, None)
    trips = runs["round trip"]
    small_speed = median(run.items_per_s for run in runs["small"]) * small / 1e9
    spread = f"{min(shares):.3f} - {max(shares):.3f}"
    within = "" if are_two else "; copies in and out are of one memory"
    return [
        Figure(f"{shown}: copy alone, {show_size(large)}", median(alone), "GB/s"),
        Figure(f"{shown}: {show_size(large)}, {at_once}", median(speeds), "GB/s"),
        Figure(f"{shown}: over the copy alone", median(shares), "", least, ">=", spread + within),
        Figure(f"{shown}: {show_size(small)}, {at_once}", small_speed, "GB/s"),
        Figure(
            f"{shown}: {show_size(small)}, one in flight, round trip p50",
            median(run.p50_us for run in trips),
            "us",
            most,
            note=f"p99 {median(run.p99_us for run in trips):.0f} us",
        ),
    ]


def _shown(gpus: tuple[int, int]) -> str:
    return f"GPU {gpus[0]} to GPU {gpus[1]}" if gpus[0] != gpus[1] else f"within GPU {gpus[0]}"
