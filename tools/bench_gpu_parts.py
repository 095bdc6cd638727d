"""The parts of `tools/bench_eden.py --gpu`: what each measures, and what that shall be."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from statistics import median

from runtime.config import find_config, parse_config
from runtime.config_files import read_config
from runtime.errors import RunpipeError
from runtime.plan import Plan
from tools.bench_clips import CORES, at_most_cores, end_alone, start_s
from tools.bench_figures import Figure
from tools.bench_files import make_clip
from tools.bench_gpu import DUAL, RATIOS, SINGLE, Bench
from tools.bench_kernels import Busy, busiest, read_parts
from tools.bench_measure import Result

PROJECT = Path(__file__).resolve().parent.parent
GIB = 2**30
START_FRAMES = 48  # of the clip of a whole start
FILE_PAIRS, FILE_REPEAT = 1536, 3  # at most: of these runs a pair may well take 3 ms
REFERENCE_S = 600.0
LIMITS = 0.9  # an end that alone takes this share of the whole limits it


def streams(bench: Bench) -> None:
    """Frames from memory, null writer: time, memory and start of every configuration."""
    names, source = bench.names(), bench.stream()
    with bench.contenders(names) as contenders:
        results = bench.measure(contenders, source)
        plans = {one.name: one.plan(source, bench.new_folder()) for one in contenders}
        bench.details["versions"] = contenders[0].versions
    bench.details["streams"] = [asdict(result) for result in results]
    bench.ms_a_pair |= {result.name: result.ms_a_pair for result in results}
    first = results[0]
    for result in results:
        is_single = result.name == SINGLE
        note = "published loop 93.5, stages alone 0.86" if is_single else ""
        target = 1.0 if is_single else None
        bench.figures.append(Figure(result.name, result.ms_a_pair, "ms a pair", target, note=note))
    for result in results[1:]:
        spread = "{:.3f} - {:.3f}".format(*result.time_spread)
        what = f"{result.name} over {first.name}"
        target = RATIOS.get(result.name)
        bench.figures.append(Figure(what, result.time_ratio, target=target, note=spread))
    bench.figures += _weights(plans, first.name)
    bench.figures += _memory(results, plans)
    bench.figures += _loading(results)
    bench.figures.append(_ends(bench))


def _weights(plans: dict[str, Plan], first: str) -> list[Figure]:
    """Judge how often the weights are there, as the plans say."""
    taken = {name: sum(d.weights_bytes for d in plan.memory) for name, plan in plans.items()}
    return [
        Figure(
            f"weights on all GPUs, {name} over {first}",
            nbytes / taken[first],
            target=1.05 if name == DUAL else None,
            note=f"{nbytes / 2**20:.0f} MiB, of the plan",
        )
        for name, nbytes in taken.items()
        if name != first
    ]


def _memory(results: Sequence[Result], plans: dict[str, Plan]) -> list[Figure]:
    """Judge the memory beyond weights, of the GPU where it is most, and whether it grows."""
    return [_memory_of(result, plans[result.name]) for result in results]


def _memory_of(result: Result, plan: Plan) -> Figure:
    what = f"{result.name}: GPU memory beyond weights"
    weights = {d.device: d.weights_bytes for d in plan.memory}
    uuids = {w.gpu.uuid: weights[w.shown_device] for w in plan.workers if w.gpu}
    first, last = (
        {uuid: run.gpu_bytes[uuid] - less for uuid, less in uuids.items() if uuid in run.gpu_bytes}
        for run in (result.runs[0], result.runs[-1])
    )
    if not last:
        return Figure(what, None, "GiB", 3.0, note="NVML shows no process of ours on a GPU")
    growth = max(last[uuid] - first[uuid] for uuid in last.keys() & first.keys())
    note = f"by NVML: context and code too; {growth / 2**20:+.0f} MiB from first run to last"
    return Figure(what, max(last.values()) / GIB, "GiB", 3.0, note=note)


def _loading(results: Sequence[Result]) -> list[Figure]:
    """Show how long workers take until the first item, in the first job and in later ones."""
    return [
        Figure(
            f"{result.name}: workers' start, until the first item",
            result.cold_s,
            "s",
            note=f"{median(run.load_s for run in result.runs):.2f} s in later jobs",
        )
        for result in results
    ]


def _ends(bench: Bench) -> Figure:
    """Measure source and sink without anything between, that they limit nothing."""
    with end_alone("ends", bench.path(bench.names()[0]), bench.settings.overrides) as ends:
        (result,) = bench.measure([ends], bench.stream())
    bench.details["ends"] = asdict(result)
    note = "copying frames and frames between, and reading them all"
    return Figure("source and null writer alone", result.ms_a_pair, "ms a pair", note=note)


def kernels(bench: Bench) -> None:
    """Trace the kernels of a part of a run, and compare the time of a pair with theirs."""
    found = {}
    for name in bench.names():
        folder = bench.new_folder()
        with bench.contenders([name], traced=_traced(bench, name)) as contenders:
            run = contenders[0].run(bench.stream(), folder, leave_out=bench.settings.leave_out)
            shares = contenders[0].shares
        parts = read_parts(folder)
        gpu = busiest(parts, shares)
        took_ms = bench.ms_a_pair.get(name)
        bench.figures.append(_overlap(name, took_ms, gpu.kernels_ms, gpu.span_ms))
        found[name] = {
            "traced_ms_a_pair": run.ms_a_pair,
            "untraced_ms_a_pair": took_ms,
            "busiest": asdict(gpu),
            "workers": [_told(one) for one in parts],
        }
    bench.details["kernels"] = found


def _overlap(name: str, took_ms: float | None, kernels_ms: float, span_ms: float) -> Figure:
    what = f"{name}: a pair over the busiest GPU's kernels"
    note = f"kernels {kernels_ms:.3f} ms a pair; {span_ms / kernels_ms:.3f} in the traced run"
    ratio = took_ms / kernels_ms if took_ms else None
    return Figure(what, ratio, target=1.08, note=note if took_ms else f"{note}; no part `streams`")


def _told(one: Busy) -> dict[str, object]:
    return {name: getattr(one, name) for name in one.__struct_fields__ if name != "part"} | {
        name: getattr(one.part, name) for name in one.part.__struct_fields__
    }


def _traced(bench: Bench, name: str) -> str:
    """Return which items of each worker are traced: half of them, after the first quarter."""
    path = find_config(bench.path(name))
    config = parse_config(read_config(path), bench.settings.overrides, path=path)
    pairs = config.video.get("pairs", 16)
    assert isinstance(pairs, int), "the stages take nothing else"
    replicas = max(stage.num_replicas for stage in list(config.stages.values())[1:-1])
    items = bench.settings.pairs // pairs // replicas
    return f"{max(1, items // 4)}:{max(1, items // 2 - 1)}"


def files(bench: Bench) -> None:
    """Real files: the whole, and each end alone, on as many cores as the targets name."""
    bench = with_fewer_pairs(bench)
    name, overrides = bench.names()[0], bench.settings.overrides
    with at_most_cores(CORES):
        clip = bench.clip()
        with bench.contenders([name], source="file", sink="file") as contenders:
            (whole,) = bench.measure(contenders, clip)
        alone = {}
        for kind in ("read", "write"):
            with end_alone(kind, bench.path(name), overrides) as end:
                (alone[kind],) = bench.measure([end], clip)
    measured = {"whole": whole, **alone}
    bench.details["files"] = {
        **{kind: asdict(one) for kind, one in measured.items()},
        "settings": {key: getattr(bench.settings, key) for key in ("pairs", "leave_out", "repeat")},
    }
    limits = [
        f"limited by {kind}, which alone takes {one.ms_a_pair:.2f} ms a pair"
        for kind, one in alone.items()
        if one.ms_a_pair > LIMITS * whole.ms_a_pair
    ]
    what = f"{name}, file in and out"
    busiest = [f"busiest: {whole.runs[-1].busiest}"] if not limits else []
    note = "; ".join(limits or busiest)
    bench.figures.append(Figure(what, whole.ms_a_pair, "ms a pair", 1.1, note=note))
    for kind, frames, target in (("read", 1, 1300.0), ("write", 2, 2500.0)):
        speed = frames * alone[kind].pairs_per_s
        bench.figures.append(Figure(f"{kind} alone", speed, "frames/s", target, ">="))


def with_fewer_pairs(bench: Bench) -> Bench:
    """Return a bench for the same table, whose runs end in seconds with slow ends too.

    Of each run more is left out, as every writer has a segment of its own under way: until all have
    one, and from when the first has none, what they take is not what they can.
    """
    settings = bench.settings
    pairs = min(settings.pairs, FILE_PAIRS)
    leave_out = settings.leave_out if settings.clip else max(settings.leave_out, pairs // 4)
    shorter = replace(
        settings, pairs=pairs, leave_out=leave_out, repeat=min(settings.repeat, FILE_REPEAT)
    )
    return replace(bench, settings=shorter)


def start(bench: Bench) -> None:
    """The command line on a short clip, with compilers' caches empty, then as they are after it."""
    width, height = bench.settings.size
    folder = bench.new_folder()
    folder.mkdir()
    clip, name = folder / "short.mp4", bench.names()[0]
    make_clip(clip, width=width, height=height, num_frames=START_FRAMES)
    took = [
        start_s(
            bench.path(name),
            clip,
            folder / f"{number}.mp4",
            bench.settings.overrides,
            caches=folder / "caches",
        )
        for number in range(3)
    ]
    bench.details["start_s"] = took
    what = f"command line, {START_FRAMES} frames, {name}"
    note = "compilers' caches empty; published script 10.9"
    bench.figures.append(Figure(f"{what}: first start", took[0], "s", 6.0, note=note))
    bench.figures.append(Figure(f"{what}: later start", median(took[1:]), "s", 5.0))


def reference(bench: Bench) -> None:
    """The published loop, in a process of its own."""
    settings, (width, height) = bench.settings, bench.settings.size
    command = [sys.executable, str(PROJECT / "tools" / "bench_reference.py")]
    command += ["--weights", settings.weights, "--device", settings.reference_device]
    command += ["--width", str(width), "--height", str(height)]
    command += ["--pairs", str(settings.reference_pairs)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=REFERENCE_S)
    if done.returncode:
        raise RunpipeError(f"{' '.join(command)}: exit {done.returncode}: {done.stderr.strip()}")
    found = json.loads(done.stdout)
    bench.details["reference"] = found
    what = "fp32 as published: one pair at a time, nothing reused"
    note = "93.5 published, with its files"
    bench.figures.append(Figure(what, found["ms_a_pair"], "ms a pair", note=note))


PARTS: dict[str, Callable[[Bench], None]] = {
    "streams": streams,
    "kernels": kernels,
    "files": files,
    "start": start,
    "reference": reference,
}
