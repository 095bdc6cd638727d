"""How fast a benchmark is edited and scored, beside what people run else, all by their targets.

It needs no file but this project's: weights are random, of full size, made on the GPU. What a part
takes is predicted and told beside what it took; `--within` leaves out what no longer fits.

    one GPU, 9 minutes (long, short, serial):
    $ python tools/bench_edit_score.py --within 570 --json one.json
    two GPUs, 6 minutes (scaling, rivals, switch):
    $ python tools/bench_edit_score.py --within 570 --json two.json
    no GPU, 2 minutes:
    $ python tools/bench_edit_score.py --parts overhead,slots
    the tool itself, on a CPU:
    $ python tools/bench_edit_score.py --tiny --parts long,short

Times are those of an H200: 0.43 s a pass of the transformer, so 21.5 s an edit of 50 steps without
guidance and 43 with (`--cfg`). Without, what is not the transformer's weighs twice as much: that is
the harder half of each target, and the default. Both sides are eager unless `--compile` is said.
An editor and a judge take 76 GB of a GPU; an editor beside the plain loop, which stays loaded, 116.
"""

from __future__ import annotations

import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import click
import msgspec

from runtime.errors import RunpipeError
from runtime.host import ROOT, probe_host
from tools.bench_edit_host import overhead, slots
from tools.bench_edit_parts import PARTS, Bench
from tools.bench_edit_plan import Settings, predicted_s
from tools.bench_edit_runs import Work
from tools.bench_figures import figure_lines
from tools.bench_gpus import gpu_facts
from tools.hop_report import circumstances

HOST_PARTS = {"overhead": overhead, "slots": slots}
HOST_PART_S = 40.0
SIGNALLED = 128


def parts_by_default(num_gpus: int) -> tuple[str, ...]:
    """Return what to measure on so many GPUs."""
    if num_gpus > 1:
        return ("scaling", "rivals", "switch")
    return ("long", "short", "serial") if num_gpus else tuple(HOST_PARTS)


def settings_of(*, tiny: bool, num_gpus: int, **given: Any) -> Settings:  # noqa: ANN401
    """Return what to measure: with `tiny` so little that a CPU does it."""
    values = {name: value for name, value in given.items() if value is not None}
    compiles, has_cfg = values.pop("compiles", False), values.pop("cfg", False)
    steps = values.pop("steps", 2 if tiny else 8)
    if tiny:
        work = Work(
            weights="random:0:tiny",
            judge="random:0:tiny",
            dtype="float32",
            steps=steps,
            side=64,
            group_size=2,
            on_gpu=False,
        )
        small = {"long_steps": 3, "samples": 4, "long_samples": 4, "scaling_samples": 4}
        values = small | {"one_gpu_samples": 4, "num_gpus": 2} | values
    else:
        work = Work(steps=steps, compiles=compiles)
        values = {"num_gpus": num_gpus} | values
    return Settings(work=work, long_cfg_scale=4.0 if has_cfg else 1.0, **values)


def run_parts(
    bench: Bench, parts: Sequence[str], within_s: float | None, path: Path | None
) -> None:
    """Run them in this order; after each, everything that was found is in the file at `path`."""
    began, found = time.monotonic(), _circumstances()
    for name in parts:
        left = within_s - (time.monotonic() - began) if within_s else None
        wanted = HOST_PART_S if name in HOST_PARTS else predicted_s(name, bench.settings)
        if left is not None and wanted > left:
            bench.add(f"part {name}", None, note=f"left out: {wanted:.0f} s of {left:.0f}")
            continue
        start, num = time.monotonic(), len(bench.figures)
        click.echo(f"{name}: about {wanted:.0f} s", err=True)
        try:
            (PARTS | HOST_PARTS)[name](bench)
        except (RunpipeError, RuntimeError) as error:  # the other parts are worth having
            bench.add(f"part {name}", None, target=0.0, note=f"failed: {error}")
        took = time.monotonic() - start
        bench.details.setdefault("parts", {})[name] = {"predicted_s": wanted, "took_s": took}
        click.echo(f"{name}: took {took:.0f} s", err=True)
        click.echo("\n".join(figure_lines(bench.figures[num:])), err=True)
        if path:
            _write(path, bench, found)


def _circumstances() -> dict[str, Any]:
    return circumstances() | {"host": asdict(probe_host(ROOT))} | gpu_facts()


def _write(path: Path, bench: Bench, found: dict[str, Any]) -> None:
    record = found | {
        "settings": asdict(bench.settings),
        "figures": [asdict(one) | {"verdict": one.verdict} for one in bench.figures],
        "details": bench.details,
    }
    path.write_bytes(msgspec.json.format(msgspec.json.encode(record), indent=2) + b"\n")


@click.command(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.option(
    "--parts",
    metavar="A,B",
    help="Of long, short, serial, switch, scaling, rivals, "
    "overhead, slots.  [by the number of GPUs]",
)
@click.option("--samples", type=click.IntRange(min=2), help="With few steps, on one GPU.  [16]")
@click.option("--scaling-samples", type=click.IntRange(min=2), help="On all GPUs.  [32]")
@click.option("--one-gpu-samples", type=click.IntRange(min=2), help="Of these, on one.  [16]")
@click.option("--long-samples", type=click.IntRange(min=3), help="With many steps.  [4]")
@click.option("--serial-samples", type=click.IntRange(min=1), help="[2]")
@click.option("--steps", type=click.IntRange(min=2), help="Few steps, without guidance.  [8]")
@click.option("--long-steps", type=click.IntRange(min=2), help="Many steps.  [50]")
@click.option("--cfg", is_flag=True, help="Many steps with guidance: two passes a step.")
@click.option("--compile", "compiles", is_flag=True, help="Compiled blocks on both sides.")
@click.option("--gpus", "wanted", type=click.IntRange(min=1), help="[all]")
@click.option("--within", "within_s", type=float, metavar="SECONDS", help="Leave out what is over.")
@click.option("--tiny", is_flag=True, help="Tiny models on the CPU: tries the tool, no more.")
@click.option("--json", "path", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE")
def main(
    parts: str | None,
    within_s: float | None,
    tiny: bool,
    wanted: int | None,
    path: Path | None,
    **given: Any,  # noqa: ANN401
) -> None:
    """Measure editing and scoring on GPUs, beside diffusers' own loop and other ways to run it."""
    have = len(probe_host(ROOT).gpus)
    num_gpus = min(wanted or have, have)
    names = tuple(parts.split(",")) if parts else parts_by_default(num_gpus)
    if unknown := [name for name in names if name not in PARTS | HOST_PARTS]:
        raise click.UsageError(f"--parts: no part is named {unknown[0]}")
    if not (tiny or num_gpus) and set(names) & set(PARTS):
        raise click.UsageError("this host has no GPU; say --tiny, or --parts overhead,slots")
    with tempfile.TemporaryDirectory(prefix="rp-") as folder:
        bench = Bench(settings_of(tiny=tiny, num_gpus=num_gpus, **given), Path(folder))
        run_parts(bench, names, within_s, path)
    click.echo("\n".join(figure_lines(bench.figures)))


def _interrupt(signum: int, _frame: object) -> None:
    """Unwind once: processes and files go on the way out."""
    for each in (signal.SIGINT, signal.SIGTERM):
        signal.signal(each, signal.SIG_IGN)
    raise SystemExit(SIGNALLED + signum)


if __name__ == "__main__":
    signal.signal(signal.SIGINT, _interrupt)
    signal.signal(signal.SIGTERM, _interrupt)
    main()
