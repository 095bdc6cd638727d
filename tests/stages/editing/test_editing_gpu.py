"""On a GPU an edit is only queued, and is what diffusers makes there."""

import pytest
import torch

from stages.base import Item
from stages.editing import Edit, EncodePrompts
from stages.editing.published import PLAIN
from stages.editing.stage import DTYPES
from tests.stages.editing.conftest import (
    SMALL,
    STEPS,
    facts_of,
    meta_of,
    picture,
    run_stages,
    split_stages,
    whole_stage,
)

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU"),
    pytest.mark.filterwarnings("ignore:Synchronization debug mode is a prototype"),
]


def on_gpu(weights, dtype, **keywords):
    stages = [
        EncodePrompts(weights=weights, dtype=dtype),
        Edit(weights=weights, dtype=dtype, steps=STEPS, area=SMALL, **keywords),
    ]
    for stage in stages:
        stage.load("cuda:0")
        stage.prepare(facts_of(), 1)
    return stages


def tensors_for(stages, facts):
    source = torch.zeros(facts.max_source_bytes, dtype=torch.uint8)
    source[: picture().size] = torch.from_numpy(picture()).flatten()
    tensors = {"source": source.cuda()}
    for stage in stages:
        for name, spec in stage.specs(facts).items():
            dtype = torch.uint8 if spec.dtype == "uint8" else DTYPES[spec.dtype]
            tensors[name] = torch.zeros(spec.shape, dtype=dtype, device="cuda")
    return tensors


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_an_edit_is_queued_and_is_diffusers_own(checkpoint, dtype):
    facts, stages = facts_of(), on_gpu(checkpoint(), dtype)
    tensors, meta = tensors_for(stages, facts), meta_of()
    meta = stages[0].run(tensors, tensors, Item(index=0, attempt=0, meta=meta))
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        meta = stages[1].run(tensors, tensors, Item(index=0, attempt=0, meta=meta))
    finally:
        torch.cuda.set_sync_debug_mode("default")
    call = {"num_inference_steps": STEPS, "negative_prompt": " "}
    whole = whole_stage(checkpoint(), PLAIN, call, dtype=dtype, device="cuda:0")
    wanted = tensors_for([whole], facts)
    whole.run(wanted, wanted, Item(index=0, attempt=0, meta=meta_of()))
    assert torch.equal(tensors["edited"], wanted["edited"])
    assert tensors["edited"].float().std() > 10


def test_compiled_blocks_change_little(checkpoint):
    facts, edits = facts_of(), []
    for stages in (on_gpu(checkpoint(), "float32", compile=flag) for flag in (False, True)):
        tensors, meta = tensors_for(stages, facts), meta_of()
        for stage in stages:
            meta = stage.run(tensors, tensors, Item(index=0, attempt=0, meta=meta))
        edits.append(tensors["edited"].float())
    assert (edits[0] - edits[1]).abs().mean() < 1


@pytest.mark.parametrize(("dtype", "levels"), [("float32", 2.0), ("bfloat16", 8.0)])
def test_an_edit_is_about_what_a_cpu_makes(checkpoint, dtype, levels):
    """Random weights are drawn on their device, so it takes a checkpoint to compare."""
    facts, stages = facts_of(), on_gpu(checkpoint(), dtype)
    tensors, meta = tensors_for(stages, facts), meta_of()
    for stage in stages:
        meta = stage.run(tensors, tensors, Item(index=0, attempt=0, meta=meta))
    wanted = run_stages(split_stages(checkpoint(), true_cfg_scale=4.0), facts, meta_of())
    assert (meta.prompt_tokens, meta.passes) == (wanted.meta.prompt_tokens, wanted.meta.passes)
    found = tensors["edited"][: wanted.pixels.numel()].cpu().float()
    assert (found - wanted.pixels.float()).abs().mean() < levels


def test_full_size_weights_are_made_on_the_gpu_and_edit():
    """42 GB that are never in host memory; it takes seconds, and more memory than a small GPU."""
    if torch.cuda.mem_get_info()[0] < 60e9:
        pytest.skip("needs 60 GB of GPU memory")
    stage = Edit(weights="random:0", steps=2, true_cfg_scale=1.0)
    stage.load("cuda:0")
    promised = stage.footprint(facts_of(), "cuda:0").weights_bytes
    taken = torch.cuda.memory_allocated()
    assert promised <= taken <= 1.05 * promised
    assert stage.prepare(facts_of(), 1) == 1
    stage.close()
