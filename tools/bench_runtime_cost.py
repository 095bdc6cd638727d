"""What the runtime itself costs a sample of edit_score: CPU time beyond what its stages do."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # `python tools/...`

import click
import yaml
from PIL import Image

from runtime.config_files import PROJECT
from tools.bench_figures import Figure, figure_lines
from tools.cost_stages import GROUP, HEIGHT, IMAGE_BYTES, WIDTH

TARGET_MS = 10.0
STAGES = {
    "read": {"use": "tools.cost_stages:Samples"},
    "edit": {"use": "tools.cost_stages:Edit"},
    "save": {"use": "tools.cost_stages:Save", "output": "edits.txt"},
    "collect": {"use": "tools.cost_stages:Collect"},
    "score": {"use": "tools.cost_stages:Judge"},
    "report": {"use": "tools.cost_stages:Report", "output": "results.txt"},
}
EDIT_S = 0.6  # of a few-step edit, about: longer than its PNG takes to encode
NUM_EDITS = 8


@dataclass(frozen=True, slots=True)
class Cost:
    """What one run took, of all its processes together."""

    samples: int
    cpu_s: float
    stages_s: float  # of that, inside of the stages
    wall_s: float


def measure(folder: Path, samples: int) -> Cost:
    """Run that many samples through trivial stages in a new folder.

    Raises:
        click.ClickException: the run failed.
    """
    folder.mkdir()
    log = folder / "stages.log"
    (folder / "samples.txt").write_text(str(samples))
    config = {"pipeline": "cost", "model": {"log": str(log)}, "stages": STAGES}
    cpu_s = _run(folder, "samples.txt", config)
    return Cost(
        samples=samples,
        cpu_s=cpu_s,
        stages_s=sum(map(float, log.read_text().split())),
        wall_s=float(json.loads((folder / "run/report.json").read_text())["wall_s"]),
    )


def own_ms(few: Cost, many: Cost) -> float:
    """Return what a sample costs: how much more many of them take than few, without the stages.

    What starting and stopping takes is the same in both.
    """
    cpu_s, stages_s = many.cpu_s - few.cpu_s, many.stages_s - few.stages_s
    return (cpu_s - stages_s) / (many.samples - few.samples) * 1e3


def beside_ms(folder: Path) -> tuple[float, float]:
    """Return medians, in ms: from one edit's end to the next one's beginning, and of encoding one.

    Edits take no CPU time here; they are stored as PNG by the sink of edit_score itself.

    Raises:
        click.ClickException: the run failed.
    """
    folder.mkdir()
    Image.new("RGB", (WIDTH, HEIGHT), "teal").save(folder / "a.png")
    sample = {"group": "physical", "instruction": "Change it", "image": "a.png"}
    lines = [json.dumps({"id": f"sample-{at}", **sample}) for at in range(NUM_EDITS)]
    (folder / "samples.jsonl").write_text("\n".join(lines))
    stages = {
        "read": {"use": "stages.benchmark.read:ReadSamples"},
        "edit": {"use": "tools.cost_stages:Wait", "with": {"edit_s": EDIT_S}},
        "save": {"use": "stages.benchmark.save:SaveEdits", "output": "edits.jsonl"},
    }
    _run(folder, "samples.jsonl", {"pipeline": "beside", "stages": stages})
    edits, saves = _spans(folder, "edit"), _spans(folder, "save")
    gaps = [after[0] - before[1] for before, after in pairwise(edits)]
    return median(gaps), median(end - begin for begin, end in saves)


def _run(folder: Path, given: str, config: Mapping[str, object]) -> float:
    """Run a configuration in `folder`; return the CPU seconds of all processes."""
    (folder / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
    words = ("--config", "config.yaml", "--input", given, "--output", "out", "--run-dir", "run")
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "runtime.cli", *words, "--quiet"],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(PROJECT)},
    )
    _pid, status, usage = os.wait4(process.pid, 0)  # with all workers, which it has waited for
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise click.ClickException(f"the run in {folder} ended with {process.returncode}")
    return usage.ru_utime + usage.ru_stime


def _spans(folder: Path, stage: str) -> list[tuple[float, float]]:
    """Return when each run of a stage began and ended, in ms, in order."""
    events = json.loads((folder / "run/trace.json").read_text())["traceEvents"]
    runs = [one for one in events if one.get("cat") == "run" and one["name"] == stage]
    return sorted((one["ts"] / 1e3, (one["ts"] + one["dur"]) / 1e3) for one in runs)


@click.command()
@click.option("--samples", default=400, show_default=True, type=click.IntRange(min=16))
@click.option("--repeat", default=3, show_default=True, type=click.IntRange(min=1))
@click.option("--json", "path", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE")
def bench_runtime_cost(samples: int, repeat: int, path: Path | None) -> None:
    """Measure the runtime's own CPU time a sample, with trivial stages and images of 4.9 MB.

    Read, edit, save; then, in groups of eight, collect, score, report: all in processes of their
    own. Runs of few and of many samples take turns; the difference counts.
    """
    pairs = list[tuple[Cost, Cost]]()
    with tempfile.TemporaryDirectory(prefix="cost-") as name:
        for number in range(repeat):
            few = measure(Path(name, f"few{number}"), 2 * GROUP)
            pairs.append((few, measure(Path(name, f"many{number}"), samples + 2 * GROUP)))
        gap_ms, png_ms = beside_ms(Path(name, "beside"))
    each = sorted(own_ms(*pair) for pair in pairs)
    figure = Figure(
        "runtime's own CPU time a sample",
        median(each),
        "ms",
        TARGET_MS,
        note=f"{each[0]:.2f} to {each[-1]:.2f} in {repeat} pairs; images of {IMAGE_BYTES} bytes",
    )
    beside = Figure(
        "from an edit to the next one", gap_ms, "ms", note=f"a PNG takes {png_ms:.0f} ms, beside"
    )
    click.echo("\n".join(figure_lines([figure, beside])))
    if path is not None:
        told = {**_told(figure, pairs), "gap_ms": gap_ms, "png_ms": png_ms}
        path.write_text(json.dumps(told, indent=2) + "\n")
    if not figure.is_met:
        raise click.exceptions.Exit(1)


def _told(figure: Figure, pairs: Sequence[tuple[Cost, Cost]]) -> dict[str, object]:
    return {
        "own_ms": figure.measured,
        "target_ms": TARGET_MS,
        "image_bytes": IMAGE_BYTES,
        "pairs": [[asdict(few), asdict(many)] for few, many in pairs],
    }


if __name__ == "__main__":
    bench_runtime_cost()
