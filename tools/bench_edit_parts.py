"""The parts of tools/bench_edit_score.py on GPUs: what each runs, and what that shall be."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from statistics import median
from typing import Any

from tools.bench_edit_plan import PINNED_GB_PER_S, SANDWICH, Settings, judge_bytes
from tools.bench_edit_rivals import Spec, rival
from tools.bench_edit_runs import How, Run, Work, run_ours
from tools.bench_edit_samples import write_set
from tools.bench_figures import Figure


@dataclass(slots=True)
class Bench:
    """Where parts put what they find."""

    settings: Settings
    folder: Path
    figures: list[Figure] = field(default_factory=list)
    details: dict[str, Any] = field(default_factory=dict)
    runs: dict[str, Run] = field(default_factory=dict)  # for later parts

    def ours(self, name: str, work: Work, how: How, count: int) -> Run:
        """Run ours on a set of `count` samples."""
        run = run_ours(work, how, self.samples(count), self.folder / f"ours-{name}")
        self.runs[name] = run
        self.details[name] = asdict(run)
        return run

    def samples(self, count: int) -> Path:
        """Return a set of so many samples."""
        folder = self.folder / f"set-{count}"
        if folder.exists():
            return folder / "samples.jsonl"
        return write_set(folder, count, self.settings.work.side)

    def spec(self, work: Work, count: int, **keywords: Any) -> Spec:  # noqa: ANN401
        """Return what a rival is told."""
        edits = str(self.folder / f"rival-edits-{count}")
        return Spec(work=work, samples=str(self.samples(count)), edits=edits, **keywords)

    def add(self, *arguments: Any, **keywords: Any) -> None:  # noqa: ANN401
        """Note a figure."""
        self.figures.append(Figure(*arguments, **keywords))


def long(bench: Bench) -> None:
    """Many steps on one GPU: the share of kernels, and what scoring adds."""
    settings, count = bench.settings, bench.settings.long_samples
    work = settings.long
    alone = bench.ours("long", work, How(scores=False, traced_edit=count - 1), count)
    (kernels,) = alone.edit_kernels
    per_edit = median(_intervals(alone.edited[:-1]))  # the last one is traced
    alone_s = alone.edited[-2] - alone.began[0] + per_edit
    name = f"{work.steps} steps, {work.passes} passes an edit"
    bench.add(
        f"{name}: transformer kernels over wall between edits",
        kernels.passes_s / per_edit,
        target=0.97,
        side=">=",
        note=f"{kernels.passes_s:.3f} s of {per_edit:.3f}; all kernels {kernels.kernels_s:.3f}; "
        f"{kernels.num_passes:.0f} passes; traced edit {alone.edited[-1] - alone.began[-1]:.3f}",
    )
    both = bench.ours("long_scored", work, How(), count)
    added = both.work_s - alone_s
    bench.add(
        f"{name}: wall that scoring adds, groups of {work.group_size}",
        added / alone_s,
        target=0.02,
        note=f"{added:+.3f} s over {alone_s:.3f}; {_tail_s(both):.3f} after the last edit",
    )


def short(bench: Bench) -> None:
    """Few steps on one GPU: over diffusers' own loop, and what scoring adds."""
    settings = bench.settings
    work, count = settings.work, settings.samples
    name, few, half = f"{work.steps} steps", min(SANDWICH, count), -(-count // 2)
    with rival("edit", bench.spec(work, count), 0) as plain:
        plain.ready()
        plain.ask(1)  # what is slow once
        plain.seconds()
        loop = _asked(plain, few)
        alone = bench.ours("short", work, How(scores=False), half)
        loop += _asked(plain, few)
        plain.end()
    bench.details["plain loop"] = {"ready_s": plain.ready_s, "seconds": loop}
    bench.add(
        f"{name}: time an edit over diffusers' loop",
        alone.per_edit_s / median(loop),
        target=1.01,
        note=f"{alone.per_edit_s:.3f} s over {median(loop):.3f} "
        f"({median(loop[:few]):.3f} before, {median(loop[few:]):.3f} after)",
    )
    # The rate of the one that edits alone is the same from its first edit to its last.
    alone_s = alone.edits_s + (count - half) * alone.per_edit_s
    groups = -(-count // work.group_size)
    both = bench.ours("short_scored", work, How(traced_group=groups - 1), count)
    (kernels,) = both.judge_kernels
    judging, added = kernels.kernels_s * groups, both.work_s - alone_s
    bench.add(
        f"{name}: wall that scoring adds beyond its kernels, groups of {work.group_size}",
        (added - judging) / alone_s,
        target=0.02,
        note=f"{added:+.3f} s over {alone_s:.3f} (of {half} samples), kernels {judging:.3f}; "
        f"{_tail_s(both):.3f} after the last edit",
    )


def serial(bench: Bench) -> None:
    """The origin's way: each model on the GPU only while it works."""
    settings, count = bench.settings, bench.settings.serial_samples
    scored = bench.runs.get("short_scored")
    if scored is None:
        scored = bench.ours("short_scored", settings.work, How(), settings.samples)
    with rival("serial", bench.spec(settings.work, count), 0) as origin:
        origin.ready()
        seconds = _asked(origin, count)
        origin.end()
    bench.details["serial"] = {"ready_s": origin.ready_s, "seconds": seconds}
    ours = scored.work_s / len(scored.edited)
    bench.add(
        f"{settings.work.steps} steps, one GPU: over moving models for each sample",
        seconds[-1] / ours,
        "x",
        4.5,
        ">=",
        f"{seconds[-1]:.2f} s a sample (the first {seconds[0]:.2f}) over {ours:.3f}",
    )


def switch(bench: Bench) -> None:
    """From editor to judge, one after the other in memory."""
    work = replace(bench.settings.work, steps=2, group_size=2)
    run = bench.ours("switch", work, How(residency="phased"), 2)
    nbytes = judge_bytes(work)
    bench.add(
        "switch editor -> judge",
        run.switch_s,
        "s",
        1.3 * nbytes / PINNED_GB_PER_S / 1e9,
        note=f"{nbytes / 1e9:.2f} GB of weights, at {PINNED_GB_PER_S:.0f} GB/s and 1.3 times that",
    )


def scaling(bench: Bench) -> None:
    """All GPUs over one, edited and scored."""
    settings, work = bench.settings, bench.settings.work
    one = bench.ours("one_gpu", work, How(), settings.one_gpu_samples)
    every = _on_all(bench)
    num, count = settings.num_gpus, settings.scaling_samples
    # One GPU has the same rate from its first edit to its last.
    alone = one.edits_s + (count - settings.one_gpu_samples) * one.per_edit_s
    ratio = alone / every.edits_s
    wanted = 1.95 if num == 2 else None
    bench.add(
        f"{work.steps} steps, {count} samples: {num} GPUs over one",
        ratio,
        "x",
        wanted,
        ">=",
        f"{alone:.2f} s (of {settings.one_gpu_samples} samples {one.edits_s:.2f}) "
        f"over {every.edits_s:.2f}",
    )


def rivals(bench: Bench) -> None:
    """One diffusers process for each GPU, then a judge for each."""
    settings, work = bench.settings, bench.settings.work
    num, count = settings.num_gpus, settings.scaling_samples
    ours = bench.runs.get("every_gpu") or _on_all(bench)
    edits_s, ready_s = _phase(bench, "edit", -(-count // num))
    judge_s, judge_ready_s = _phase(bench, "judge", -(-count // num // work.group_size))
    found = {"edits_s": edits_s, "editor_ready_s": ready_s}
    found |= {"judge_s": judge_s, "judge_ready_s": judge_ready_s, "bound_s": edits_s}
    bench.details["rival"] = found
    bench.add(
        f"bound: the rival's loading {ready_s:.1f} s and edits {edits_s - ready_s:.1f} s",
        edits_s,
        "s",
        note=f"{num} GPUs, {count} samples; its judges then take {judge_s:.1f} s more",
    )
    bench.add(
        f"{work.steps} steps, {count} samples: the bound over ours",
        edits_s / ours.wall_s,
        target=0.95,
        side=">=",
        note=f"ours {ours.wall_s:.1f} s in all, {ours.load_s:.1f} until the first edit; "
        f"the rival {edits_s + judge_s:.1f}",
    )


def _on_all(bench: Bench) -> Run:
    settings = bench.settings
    how = How(num_gpus=settings.num_gpus)
    return bench.ours("every_gpu", settings.work, how, settings.scaling_samples)


def _phase(bench: Bench, kind: str, each: int) -> tuple[float, float]:
    """Return how long a process on each GPU took for `each`, and until the last was ready."""
    num, count = bench.settings.num_gpus, bench.settings.scaling_samples
    began = time.monotonic()
    with ExitStack() as stack:
        processes = []
        for gpu in range(num):
            spec = bench.spec(bench.settings.work, count, first=gpu, every=num)
            processes.append(stack.enter_context(rival(kind, spec, gpu)))
            processes[-1].ask(each)
        for one in processes:
            one.ready()
        for one in processes:
            one.seconds()
        took_s = time.monotonic() - began
        for one in processes:
            one.end()
    return took_s, max(one.ready_s for one in processes)


def _asked(process: Any, count: int) -> list[float]:  # noqa: ANN401
    process.ask(count)
    seconds: list[float] = process.seconds()
    return seconds


def _intervals(times: list[float]) -> list[float]:
    return [b - a for a, b in itertools.pairwise(times)]


def _tail_s(run: Run) -> float:
    return run.judged[-1] - run.edited[-1]


Part = Callable[[Bench], None]
PARTS: Mapping[str, Part] = {
    "long": long,
    "short": short,
    "serial": serial,
    "switch": switch,
    "scaling": scaling,
    "rivals": rivals,
}
