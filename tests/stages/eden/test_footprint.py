"""What a stage says it takes, against what torch's profiler sees it take."""

import pytest
import torch

from stages.base import Item, Job
from stages.eden import Decode, Denoise, Encode
from stages.window import VideoFacts, WindowMeta

PAIRS = 3


def facts_of(width, height):
    return VideoFacts(
        job=Job(input="", output="", work_dir=""),
        width=width,
        height=height,
        num_frames=PAIRS + 1,
        pairs_per_item=PAIRS,
        pixel_format="yuv420p",
        color_matrix="bt601",
        color_range="limited",
    )


def peak_bytes(run):
    """Return the most that `run` has allocated at once."""
    activities = [torch.profiler.ProfilerActivity.CPU]
    with torch.profiler.profile(activities=activities, profile_memory=True) as profiler:
        run()
    steps = [e for e in profiler.profiler.kineto_results.events() if e.name() == "[memory]"]
    now = peak = 0
    for step in sorted(steps, key=lambda step: step.start_ns()):
        now += step.nbytes()
        peak = max(peak, now)
    return peak


def tensors(stage, names, specs):
    return {n: torch.zeros(specs[n].shape, dtype=getattr(torch, specs[n].dtype)) for n in names}


@pytest.mark.parametrize("kind", [Encode, Denoise, Decode])
@pytest.mark.parametrize("preset", ["tiny", "small"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_stage_computes_in_about_as_much_memory_as_it_says(kind, preset, dtype):
    facts = facts_of(256, 160)
    options = {"weights": f"random:0:{preset}", "dtype": dtype}
    stages = [cls(**options) for cls in (Encode, Denoise, Decode)]
    specs = {name: spec for stage in stages for name, spec in stage.specs(facts).items()}
    specs["frames"] = type(specs["middle"])((PAIRS + 1, facts.frame_bytes), "uint8")
    stage = next(stage for stage in stages if isinstance(stage, kind))
    stage.load("cpu")
    stage.prepare(facts, PAIRS)
    inputs, outputs = tensors(stage, stage.reads, specs), tensors(stage, stage.writes, specs)
    meta = WindowMeta(num_pairs=PAIRS, pts=tuple(range(PAIRS + 1)), cuts=(False,) * PAIRS)
    item = Item(index=0, attempt=0, meta=meta)

    measured = peak_bytes(lambda: stage.run(inputs, outputs, item))

    said = stage.footprint(facts, "cpu").work_bytes
    assert measured <= said < 2.5 * measured
    copies = sum(specs[name].nbytes for name in (*stage.reads, *stage.writes))
    assert stage.footprint(facts, "cuda:0").work_bytes == said + copies


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("kind", [Encode, Denoise, Decode])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_gpu_needs_about_as_much_memory_as_is_said(kind, dtype):
    facts = facts_of(720, 480)
    torch.cuda.empty_cache()
    before = torch.cuda.memory_allocated()
    stage = kind(weights="random:0", dtype=dtype)
    stage.load("cuda")
    torch.cuda.reset_peak_memory_stats()
    stage.prepare(facts, PAIRS)  # runs once
    peak = torch.cuda.max_memory_allocated() - before
    said = stage.footprint(facts, "cuda")
    ratio = (said.weights_bytes + said.work_bytes) / peak
    assert 0.7 < ratio < 2.0, f"{said}, and {peak} were allocated"
    stage.close()


def test_the_three_stages_together_have_all_the_weights_and_one_norm_twice():
    facts = facts_of(64, 64)
    stages = [cls(weights="random:0:small") for cls in (Encode, Denoise, Decode)]
    shapes = stages[0].architecture.shapes()
    total = sum(torch.Size(shape).numel() for shape in shapes.values()) * 4
    norm = 2 * stages[0].architecture.hidden * 4
    assert sum(stage.footprint(facts, "cpu").weights_bytes for stage in stages) == total + norm


def test_half_precision_halves_the_weights():
    facts = facts_of(64, 64)
    full, half = (Denoise(weights="random:0", dtype=dtype) for dtype in ("float32", "bfloat16"))
    assert full.footprint(facts, "cpu").weights_bytes == (
        2 * half.footprint(facts, "cpu").weights_bytes
    )
