"""Contenders of tools/bench_eden.py take turns, and what comes of it."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import click

from tools.bench_runs import Contender, Run


@dataclass(frozen=True, slots=True)
class Result:
    """What one contender took: medians of its runs, and of the ratios to the runs beside them."""

    name: str
    ms_a_pair: float
    pairs_per_s: float
    wall_s: float
    cpu_s: float
    time_ratio: float  # ms a pair, over those of the first contender
    time_spread: tuple[float, float]  # the smallest and the largest of the ratios
    wall_ratio: float
    cpu_ratio: float
    cpu_spread: tuple[float, float]
    runs: tuple[Run, ...]
    cold_s: float = 0.0  # until the first item of the first run, which does not count elsewhere

    @classmethod
    def of(
        cls, name: str, runs: Sequence[Run], first: Sequence[Run], *, cold_s: float = 0.0
    ) -> Result:
        """Sum up runs that took turns with those of the first contender."""
        beside = list(zip(runs, first, strict=True))
        times = [run.ms_a_pair / other.ms_a_pair for run, other in beside]
        cpus = [run.cpu_s / other.cpu_s for run, other in beside]
        ms_a_pair = median(run.ms_a_pair for run in runs)
        return cls(
            name=name,
            ms_a_pair=ms_a_pair,
            pairs_per_s=1e3 / ms_a_pair,
            wall_s=median(run.wall_s for run in runs),
            cpu_s=median(run.cpu_s for run in runs),
            time_ratio=median(times),
            time_spread=(min(times), max(times)),
            wall_ratio=median(run.wall_s / other.wall_s for run, other in beside),
            cpu_ratio=median(cpus),
            cpu_spread=(min(cpus), max(cpus)),
            runs=tuple(runs),
            cold_s=cold_s,
        )


def measure(
    contenders: Sequence[Contender], source: Path, folder: Path, *, repeat: int, leave_out: int
) -> list[Result]:
    """Run all in turn, each once before it counts, and every other time in the opposite order."""
    runs: dict[str, list[Run]] = {contender.name: [] for contender in contenders}
    cold_s: dict[str, float] = {}
    orders = [contenders if turn % 2 else contenders[::-1] for turn in range(repeat + 1)]
    turns = [(turn, contender) for turn, order in enumerate(orders) for contender in order]
    with click.progressbar(turns, label="measuring", file=sys.stderr) as bar:
        for number, (turn, contender) in enumerate(bar):
            run = contender.run(source, folder / str(number), leave_out=leave_out)
            if turn:  # workers have started, loaded and warmed up in the one before
                runs[contender.name].append(run)
            else:
                cold_s[contender.name] = run.load_s
    first = runs[contenders[0].name]
    return [Result.of(name, own, first, cold_s=cold_s[name]) for name, own in runs.items()]
