"""What tracing costs: the same pipeline with and without it, in turns."""

from __future__ import annotations

import json
import os
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # `python tools/bench_trace.py`

import click

from runtime.config import PipelineConfig, load_config, parse_config
from runtime.pipeline import Pipeline

TARGET = 0.02
TRIVIAL = {
    "pipeline": "trivial",
    "stages": {
        "read": {"use": "tests.fakes:Numbers"},
        "add": {"use": "tests.fakes:Add"},
        "write": {"use": "tests.fakes:Lines", "with": {"per_segment": 64}},
    },
}


@dataclass(frozen=True)
class Cost:
    """One run, from its first item to its report, or one pair of runs as with / without."""

    wall: float
    cpu: float


@dataclass(frozen=True)
class Result:
    """All pairs of runs of one pipeline."""

    pipeline: str
    num_items: int
    without: list[Cost]
    traced: list[Cost]
    trace_bytes: int

    def added(self, pick: Callable[[Cost], float]) -> tuple[float, float, float]:
        """Return what tracing adds, as a share: the median of the pairs, and its quartiles."""
        pairs = zip(self.without, self.traced, strict=True)
        shares = [pick(traced) / pick(without) - 1 for without, traced in pairs]
        low, middle, high = statistics.quantiles(shares, n=4, method="inclusive")
        return low, middle, high

    def added_at_best(self, pick: Callable[[Cost], float]) -> float:
        """Return what it adds to the fastest run: the least disturbed by what else runs."""
        return min(map(pick, self.traced)) / min(map(pick, self.without)) - 1


def measure(
    name: str, make: Callable[[bool], PipelineConfig], source: Path, *, repetitions: int
) -> Result:
    """Run both in turns, on workers that stay; the first run of each is not counted."""
    costs: dict[bool, list[Cost]] = {False: [], True: []}
    num_items = size = 0
    with tempfile.TemporaryDirectory(prefix="rp-trace-") as text:
        folder = Path(text)
        with Pipeline(make(False)) as without, Pipeline(make(True)) as traced:
            pipelines = {False: without, True: traced}
            for repetition in range(-1, repetitions):
                for is_traced in (False, True) if repetition % 2 else (True, False):
                    run_dir = folder / f"{repetition} {is_traced}"
                    cost, num_items = _run(pipelines[is_traced], source, run_dir)
                    costs[is_traced] += [cost] if repetition >= 0 else []
                    if is_traced:
                        size = (run_dir / "trace.json").stat().st_size
                click.echo(f"\r{name}: {repetition + 1} of {repetitions}", nl=False, err=True)
    click.echo("", err=True)
    return Result(name, num_items, costs[False], costs[True], size)


def _run(pipeline: Pipeline, source: Path, run_dir: Path) -> tuple[Cost, int]:
    before, began = _own_cpu_s(), time.monotonic()
    output = run_dir.with_suffix(".mp4")  # what the demo needs; the other takes any
    report = pipeline.run(input=source, output=output, run_dir=run_dir)
    wall = time.monotonic() - began
    workers = sum(worker.cpu_user_s + worker.cpu_system_s for worker in report.workers)
    return Cost(wall, _own_cpu_s() - before + workers), report.items.done


def _own_cpu_s() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def show(results: Sequence[Result]) -> str:
    """Return the table."""
    lines = [f"tracing may cost {TARGET:.0%}; {os.cpu_count()} cores"]
    for result in results:
        wall = statistics.median(cost.wall for cost in result.without)
        lines.append(
            f"{result.pipeline}: {result.num_items} items, {wall:.2f} s a run without, "
            f"{result.num_items / wall:.0f} items/s, trace of {result.trace_bytes / 2**20:.1f} MiB"
        )
        for what, pick in (("wall", _wall), ("CPU", _cpu)):
            low, middle, high = result.added(pick)
            lines.append(
                f"  {what:4} {middle:+.2%} (quartiles of {len(result.traced)} pairs {low:+.2%} to "
                f"{high:+.2%}; the fastest runs {result.added_at_best(pick):+.2%})"
            )
    return "\n".join(lines)


def _wall(cost: Cost) -> float:
    return cost.wall


def _cpu(cost: Cost) -> float:
    return cost.cpu


@click.command(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.option("--items", type=click.IntRange(min=1), default=10_000, show_default=True)
@click.option("--repetitions", type=click.IntRange(min=2), default=9, show_default=True)
@click.option("--demo/--no-demo", default=True, show_default=True, help="The demo too.")
@click.option(
    "--json",
    "path",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Write every run there too.",
)
def main(items: int, repetitions: int, demo: bool, path: Path | None) -> None:
    """Measure what tracing costs a run, from its call to its report, the file included.

    Three stages that do next to nothing are the worst case: thousands of items a second. The demo
    is an everyday one. Both pipelines, with and without, stay up; their runs take turns.
    """
    with tempfile.TemporaryDirectory(prefix="rp-trace-") as folder:
        count = Path(folder) / "items.txt"
        count.write_text(str(items))
        results = [measure("trivial", _trivial, count, repetitions=repetitions)]
    if demo:
        clip = Path(load_config("demo").input or "")
        results.append(measure("demo", _demo, clip, repetitions=repetitions))
    click.echo(show(results))
    if path:
        path.write_text(json.dumps([asdict(result) for result in results], indent=2) + "\n")


def _trivial(traced: bool) -> PipelineConfig:
    return parse_config(TRIVIAL | {"run": {"trace": traced}})


def _demo(traced: bool) -> PipelineConfig:
    return load_config("demo", [f"run.trace={str(traced).lower()}"])


if __name__ == "__main__":
    main()
