"""How fast EDEN's stages run: in one process and in several, or one configuration and another."""

from __future__ import annotations

import re
import signal
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # `python tools/bench_eden.py`

import click
import msgspec

from runtime.cli_table import table
from runtime.errors import RunpipeError
from runtime.host import ROOT, probe_host
from runtime.pipeline import Pipeline
from tools.bench_figures import figure_lines
from tools.bench_gpu import CONFIGS, Bench, Settings
from tools.bench_gpu_parts import PARTS
from tools.bench_gpus import gpu_facts
from tools.bench_measure import Result, measure
from tools.bench_runs import MEMORY, Contender, inline_and_processes, of_config, source_file
from tools.bench_stages import Stream
from tools.hop_report import Target, circumstances

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
    sums = {run.checksum for one in results for run in one.runs}
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


def _contenders(
    names: Sequence[str], source: str, overrides: Sequence[str], stack: ExitStack
) -> list[Contender]:
    pipelines: Mapping[str, Pipeline] = (
        {name: of_config(name, source, overrides) for name in names}
        if names
        else inline_and_processes(overrides)
    )
    return [Contender(name, stack.enter_context(each)) for name, each in pipelines.items()]


def _gpu_settings(names: Sequence[str], source: str, given: Mapping[str, Any]) -> Settings:
    """Return the settings of --gpu: those that were not given are the targets' own."""
    settings = Settings(configs=tuple(names) or CONFIGS, **given)
    overrides = (*Settings().overrides, *settings.overrides)
    clip = None if source == MEMORY else Path(source)
    device = "cuda" if probe_host(ROOT).gpus else "cpu"
    return replace(settings, overrides=overrides, clip=clip, reference_device=device)


def _measure_gpus(settings: Settings, parts: Sequence[str]) -> tuple[list[str], dict[str, Any]]:
    """Return the table of --gpu, and everything for the JSON."""
    with tempfile.TemporaryDirectory(prefix="rp-") as folder:
        bench = Bench(settings, Path(folder))
        bench.tell_missing()
        for name, part in PARTS.items():
            if name in (parts or PARTS):
                click.echo(name, err=True)
                part(bench)
    record = {
        "settings": asdict(settings) | {"clip": str(settings.clip or "")},
        "figures": [asdict(one) | {"verdict": one.verdict} for one in bench.figures],
        "details": bench.details,
    }
    return figure_lines(bench.figures), record


def _measure_configs(
    names: Sequence[str],
    source: str,
    overrides: Sequence[str],
    *,
    size: tuple[int, int] = (480, 270),
    pairs: int = 96,
    leave_out: int = 8,
    repeat: int = 5,
) -> tuple[list[str], dict[str, Any]]:
    """Return the table of configurations, or of inline and processes, and all for the JSON."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="rp-")))
        file = source_file(source, folder, Stream(width=size[0], height=size[1], num_pairs=pairs))
        contenders = _contenders(names, source, overrides, stack)
        results = measure(contenders, file, folder, repeat=repeat, leave_out=leave_out)
    judged = [] if names else targets(results)
    settings = {"source": source, "size": list(size), "pairs": pairs, "leave_out": leave_out}
    record = {
        "stage_versions": contenders[0].versions,
        "settings": settings | {"repeat": repeat, "overrides": list(overrides)},
        "results": [asdict(result) for result in results],
        "targets": [asdict(target) for target in judged],
    }
    return report_lines(results, judged), record


@click.command(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.option("--config", "names", multiple=True, metavar="NAME", help="May be given again.")
@click.option("--source", default=MEMORY, show_default=True, metavar="memory|FILE")
@click.option("--size", type=Resolution(), help="From memory.  [480x270; --gpu: 720x480]")
@click.option("--pairs", type=click.IntRange(min=1), help="[96; --gpu: 2048]")
@click.option("--leave-out", type=click.IntRange(min=0), help="[8; --gpu: 64]")
@click.option("--repeat", type=click.IntRange(min=1), default=5, show_default=True)
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="As of runpipe.")
@click.option("--gpu", is_flag=True, help="All figures of EDEN on GPUs, beside their targets.")
@click.option(
    "--part",
    "parts",
    multiple=True,
    type=click.Choice(list(PARTS)),
    help="Of --gpu; may be given again.  [all]",
)
@click.option("--json", "path", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE")
def main(
    names: tuple[str, ...],
    source: str,
    overrides: tuple[str, ...],
    gpu: bool,
    parts: tuple[str, ...],
    path: Path | None,
    **counts: Any,  # noqa: ANN401
) -> None:
    """Measure EDEN's stages between a source that costs nothing and a sink that writes nothing.

    Without --config: two busy stages inline and in two processes, one thread each, on the CPU. With
    --config: one configuration and another. Contenders take turns, and run once before it counts.
    Of each run the first and the last --leave-out pairs do not count in the time of a pair.

    With --gpu: the configurations for GPUs with random weights, their memory, their kernels, video
    files, a whole start, and the published loop; --source FILE is then the video of the files.
    """
    if len(set(names)) < len(names):
        raise click.UsageError("--config: each configuration once; runs are repeated by --repeat")
    if parts and not gpu:
        raise click.UsageError("--part: say --gpu too")
    found = circumstances() | {"host": asdict(probe_host(ROOT))} | gpu_facts()
    given = {name: value for name, value in counts.items() if value is not None}
    try:
        if gpu:
            settings = _gpu_settings(names, source, given | {"overrides": overrides})
            lines, record = _measure_gpus(settings, parts)
        else:
            lines, record = _measure_configs(names, source, overrides, **given)
    except RunpipeError as error:
        raise click.ClickException(str(error)) from error
    click.echo("\n".join(lines))
    if path:
        path.write_bytes(msgspec.json.format(msgspec.json.encode(found | record), indent=2) + b"\n")
    sums = {run["checksum"] for one in record.get("results", ()) for run in one["runs"]}
    if not names and len(sums) > 1:
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
