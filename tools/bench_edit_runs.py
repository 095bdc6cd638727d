"""Our runs, for tools/bench_edit_score.py: edit_score.yaml by the runtime, between stamps."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from runtime.chain import Chain
from runtime.config import PipelineConfig, find_config, parse_config
from runtime.config_files import read_config
from runtime.errors import RunpipeError
from runtime.report import Report
from tools.bench_edit_ends import NEVER, stamps
from tools.bench_edit_kernels import Kernels, read_kernels

CONFIG = "edit_score"
EDITS, RESULTS = "edits", "results"  # sections
USES = {
    "edit": "tools.bench_edit_traced:MeasuredEdit",
    "save": "tools.bench_edit_ends:TimedSave",
    "score": "tools.bench_edit_traced:MeasuredScore",
    "report": "tools.bench_edit_ends:TimedScores",
}
GRACE_S = 60.0  # workers write their traces when they are told to end


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """What is computed, by us and by rivals alike."""

    weights: str = "random:0"
    judge: str = "random:0"
    dtype: str = "bfloat16"
    steps: int = 8
    true_cfg_scale: float = 1.0
    side: int = 1024  # pixels of a picture's side
    group_size: int = 8
    compiles: bool = False
    on_gpu: bool = True

    @property
    def passes(self) -> int:
        """Passes of the transformer in an edit."""
        return self.steps * (2 if self.true_cfg_scale > 1 else 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class How:
    """How one run of ours goes."""

    num_gpus: int = 1
    scores: bool = True
    traced_edit: int = NEVER
    traced_group: int = NEVER
    residency: str = "auto"


@dataclass(slots=True, kw_only=True)
class Run:
    """What came of one run. Times are of time.monotonic()."""

    wall_s: float
    load_s: float
    began: list[float]  # an edit was begun
    edited: list[float]  # an edit arrived where it is saved
    judged: list[float]
    switch_s: float
    gpu_peaks: dict[str, int]
    edit_kernels: list[Kernels] = field(default_factory=list)
    judge_kernels: list[Kernels] = field(default_factory=list)

    @property
    def edits_s(self) -> float:
        """From the beginning of the first edit until the last one is there."""
        return self.edited[-1] - self.began[0]

    @property
    def work_s(self) -> float:
        """From the beginning of the first edit until everything is there."""
        return max(self.edited[-1:] + self.judged[-1:]) - self.began[0]

    @property
    def per_edit_s(self) -> float:
        """Median time between edits, of one worker."""
        return median(b - a for a, b in zip(self.edited, self.edited[1:], strict=False))


def run_ours(work: Work, how: How, samples: Path, folder: Path) -> Run:
    """Run the product on a set of samples.

    Raises:
        RunpipeError: not all of it could be done.
    """
    config = config_of(work, how)
    folder.mkdir()
    with Chain(config) as chain:
        report = chain.run(input=samples, output=folder / "output", run_dir=folder / "run")
    run = _run_of(report, folder / "run")
    if how.traced_edit != NEVER:
        run.edit_kernels = read_kernels(folder / "run" / EDITS, "MeasuredEdit")
    if how.traced_group != NEVER:
        run.judge_kernels = read_kernels(folder / "run" / RESULTS, "MeasuredScore")
    return run


def config_of(work: Work, how: How) -> PipelineConfig:
    """Return the shipped configuration with our ends, weights and GPUs."""
    path = find_config(CONFIG)
    data = copy.deepcopy(dict(read_config(path)))
    data["model"] = {
        "weights": work.weights,
        "dtype": work.dtype,
        "steps": work.steps,
        "true_cfg_scale": work.true_cfg_scale,
    }
    area = work.side * work.side
    data["samples"] = _mapping(data["samples"]) | {"group_size": work.group_size, "area": area}
    stages: dict[str, Any] = dict(_mapping(data["stages"]))
    place = {"gpus": list(range(how.num_gpus))} if work.on_gpu else {"replicas": how.num_gpus}
    for name in ("prompts", "edit", "score"):
        stages[name] = {key: v for key, v in stages[name].items() if key != "gpus"} | place
    for name, use in USES.items():
        stages[name] = stages[name] | {"use": use}
    stages["edit"]["with"] = {"traced": how.traced_edit, "compile": work.compiles}
    stages["score"]["with"] = {"weights": work.judge, "traced": how.traced_group}
    data["stages"] = stages
    data["run"] = {"stop_grace_s": GRACE_S, "residency": how.residency}
    if not how.scores:
        data["run"]["only"] = EDITS
    return parse_config(data, path=path.absolute())


def _run_of(report: Report, folder: Path) -> Run:
    if report.status != "done":
        raise RunpipeError(f"the run is {report.status}: {report.failures[:3]}")
    return Run(
        wall_s=report.wall_s,
        load_s=report.load_s,
        began=stamps(folder / EDITS, "began"),
        edited=stamps(folder / EDITS, "edited"),
        judged=stamps(folder / RESULTS, "judged"),
        switch_s=report.residency.switch_s if report.residency else 0.0,
        gpu_peaks={one.name: one.gpu_peak_bytes for one in report.workers if one.gpu_peak_bytes},
    )


def _mapping(value: object) -> Mapping[str, Any]:
    assert isinstance(value, Mapping)
    return value
