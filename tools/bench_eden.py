"""How fast EDEN's stages run: in one process and in several, or one configuration and another."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # `python tools/bench_eden.py`

import click

from runtime.cli_table import table
from runtime.errors import RunpipeError
from runtime.host import ROOT, probe_host
from runtime.pipeline import Pipeline
from tools.bench_runs import (
    MEMORY,
    Contender,
    Run,
    inline_and_processes,
    of_config,
    source_file,
)
from tools.bench_stages import Stream
from tools.hop_report import Target, circumstances

PROJECT = Path(__file__).resolve().parent.parent
MOST_CPU, LEAST_SPEED = 1.05, 1.5  # of processes over inline, with two cores
SIGNALLED = 128


class Resolution(click.ParamType):
    """Width and height, as 480x270."""

    name = "WxH"

    def convert(
        self,
        value: str | tuple[int, int],
        param: click.Parameter | None,
        ctx: click.Context | None,
    ) -> tuple[int, int]:
        """Return width and height in pixels."""
        if isinstance(value, tuple):
            return value
        match = re.fullmatch(r"([1-9]\d{0,4})x([1-9]\d{0,4})", value)
        if match is None:
            self.fail(f"{value!r} is no size such as 480x270", param, ctx)
        return int(match[1]), int(match[2])


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

    @classmethod
    def of(cls, name: str, runs: Sequence[Run], first: Sequence[Run]) -> Result:
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
        )


def measure(
    contenders: Sequence[Contender], source: Path, folder: Path, *, repeat: int, leave_out: int
) -> list[Result]:
    """Run all in turn, each once before it counts, and every other time in the opposite order."""
    runs: dict[str, list[Run]] = {contender.name: [] for contender in contenders}
    orders = [contenders if turn % 2 else contenders[::-1] for turn in range(repeat + 1)]
    turns = [(turn, contender) for turn, order in enumerate(orders) for contender in order]
    with click.progressbar(turns, label="measuring", file=sys.stderr) as bar:
        for number, (turn, contender) in enumerate(bar):
            run = contender.run(source, folder / str(number), leave_out=leave_out)
            if turn:  # workers have started, loaded and warmed up in the one before
                runs[contender.name].append(run)
    first = runs[contenders[0].name]
    return [Result.of(name, own, first) for name, own in runs.items()]


def targets(results: Sequence[Result]) -> list[Target]:
    """Judge two processes by the same stages inline."""
    (processes,) = results[1:]
    speed, cpu = 1 / processes.wall_ratio, processes.cpu_ratio
    cores = "" if probe_host().cores >= 2 else " (needs two cores)"
    return [
        Target(f"CPU time over inline's, at most{cores}", MOST_CPU, cpu, cpu <= MOST_CPU),
        Target(f"faster than inline, at least{cores}", LEAST_SPEED, speed, speed >= LEAST_SPEED),
    ]


def report_lines(results: Sequence[Result], judged: Sequence[Target]) -> list[str]:
    """Return everything for reading."""
    head = ("contender", "ms a pair", "pairs/s", "time", "spread", "wall s", "CPU s", "CPU")
    rows = [
        (
            one.name,
            f"{one.ms_a_pair:.2f}",
            f"{one.pairs_per_s:.2f}",
            f"{one.time_ratio:.3f} x",
            "{:.3f} - {:.3f}".format(*one.time_spread),
            f"{one.wall_s:.2f}",
            f"{one.cpu_s:.2f}",
            f"{one.cpu_ratio:.3f} x",
        )
        for one in results
    ]
    judgements = [
        f"{'pass' if one.passed else 'MISS'}  {one.what} {one.wanted:g}: {one.measured:.3f}"
        for one in judged
    ]
    sums = {run.sha256 for one in results for run in one.runs}
    same = "the same bytes each time" if len(sums) == 1 else "not the same bytes each time"
    return [
        *table(head, rows, right=",".join(head[1:])),
        "",
        f"{same}; x: over {results[0].name}, median of the ratios of neighbouring runs",
        "wall s: from the first item to the end of the job",
        "CPU s: user and system, of the supervisor and all workers, of the whole job: opening it,",
        "a rehearsal of each stage, all items, the report; workers had started and loaded before",
        *judgements,
    ]


def commit() -> str:
    """Return the commit that was measured, with a "+" if files differ from it; "" if unknown."""
    git = ("git", "-C", str(PROJECT))
    try:
        head = subprocess.run((*git, "rev-parse", "HEAD"), capture_output=True, text=True)
        status = subprocess.run((*git, "status", "--porcelain"), capture_output=True, text=True)
    except FileNotFoundError:  # no git
        return ""
    return head.stdout.strip() + ("+" if status.stdout else "")


def _contenders(
    names: Sequence[str], source: str, overrides: Sequence[str], stack: ExitStack
) -> list[Contender]:
    pipelines: Mapping[str, Pipeline] = (
        {name: of_config(name, source, overrides) for name in names}
        if names
        else inline_and_processes(overrides)
    )
    return [Contender(name, stack.enter_context(each)) for name, each in pipelines.items()]


@click.command(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.option("--config", "names", multiple=True, metavar="NAME", help="May be given again.")
@click.option("--source", default=MEMORY, show_default=True, metavar="memory|FILE")
@click.option("--size", type=Resolution(), default=(480, 270), help="From memory.  [480x270]")
@click.option("--pairs", type=click.IntRange(min=1), default=96, show_default=True)
@click.option("--leave-out", type=click.IntRange(min=0), default=8, show_default=True)
@click.option("--repeat", type=click.IntRange(min=1), default=5, show_default=True)
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="As of runpipe.")
@click.option("--json", "path", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE")
def main(
    names: tuple[str, ...],
    source: str,
    size: tuple[int, int],
    pairs: int,
    leave_out: int,
    repeat: int,
    overrides: tuple[str, ...],
    path: Path | None,
) -> None:
    """Measure EDEN's stages between a source that costs nothing and a sink that writes nothing.

    Without --config: two busy stages inline and in two processes, one thread each, on the CPU. With
    --config: one configuration and another. Contenders take turns, and run once before it counts.
    Of each run the first and the last --leave-out pairs do not count in the time of a pair.
    """
    if len(set(names)) < len(names):
        raise click.UsageError("--config: each configuration once; runs are repeated by --repeat")
    found = circumstances() | {"commit": commit(), "host": asdict(probe_host(ROOT))}
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="rp-")))
        stream = Stream(width=size[0], height=size[1], num_pairs=pairs)
        file = source_file(source, folder, stream)
        try:
            contenders = _contenders(names, source, overrides, stack)
            results = measure(contenders, file, folder, repeat=repeat, leave_out=leave_out)
        except RunpipeError as error:
            raise click.ClickException(str(error)) from error
        found["stage_versions"] = contenders[0].versions
    judged = [] if names else targets(results)
    click.echo("\n".join(report_lines(results, judged)))
    if path:
        settings = {"source": source, "size": list(size), "pairs": pairs, "leave_out": leave_out}
        record = found | {
            "settings": settings | {"repeat": repeat, "overrides": list(overrides)},
            "results": [asdict(result) for result in results],
            "targets": [asdict(target) for target in judged],
        }
        path.write_text(json.dumps(record, indent=2) + "\n")
    if not names and len({run.sha256 for one in results for run in one.runs}) > 1:
        raise click.ClickException("inline and processes computed different bytes")


def _interrupt(signum: int, _frame: object) -> None:
    """Unwind once: processes and files go on the way out."""
    for each in (signal.SIGINT, signal.SIGTERM):
        signal.signal(each, signal.SIG_IGN)
    raise SystemExit(SIGNALLED + signum)


if __name__ == "__main__":
    signal.signal(signal.SIGINT, _interrupt)
    signal.signal(signal.SIGTERM, _interrupt)
    main()
