"""Two stages after each other make the bytes that diffusers' own pipeline makes."""

import diffusers
import pytest
import torch
from PIL import Image

from stages.base import Item
from stages.benchmark.facts import edited_size
from tests.stages.editing.conftest import (
    HEIGHT,
    SMALL,
    STEPS,
    WIDTH,
    facts_of,
    meta_of,
    picture,
    run_stages,
    split_stages,
    whole_stage,
)


def pipelines_own(folder, meta, *, area=SMALL, **call):
    """Return what the pipeline makes of the same picture, as a user of diffusers calls it."""
    pipeline = diffusers.DiffusionPipeline.from_pretrained(folder)
    pipeline.set_progress_bar_config(disable=True)
    height, width = edited_size(meta.height, meta.width, area)
    image = pipeline(
        Image.fromarray(picture(meta.height, meta.width)),
        meta.instruction,
        num_inference_steps=STEPS,
        generator=torch.Generator().manual_seed(meta.seed),
        height=height,
        width=width,
        **call,
    ).images[0]
    assert image.size == (width, height)
    return torch.frombuffer(bytearray(image.tobytes()), dtype=torch.uint8)


@pytest.mark.slow
@pytest.mark.parametrize("preset", ["tiny", "tinyplus", "tinyplus2511"])
def test_prompts_and_edit_are_the_whole_pipeline_to_the_last_bit(checkpoint, preset):
    facts, meta = facts_of((HEIGHT, WIDTH), (10, 20)), meta_of()  # the second's edit is larger
    edited = run_stages(split_stages(checkpoint(preset)), facts, meta)
    wanted = pipelines_own(checkpoint(preset), meta, negative_prompt=" ")
    assert wanted.float().std() > 10  # no grey in which everything is equal
    assert torch.equal(edited.pixels, wanted)
    behind = edited.tensors["edited"][wanted.numel() :]
    assert len(behind) > 0
    assert not behind.any()


@pytest.mark.slow
def test_at_a_megapixel_too(checkpoint):
    meta = meta_of(height=WIDTH, width=HEIGHT)  # upright
    facts = facts_of((WIDTH, HEIGHT))
    edited = run_stages(split_stages(checkpoint(), area=1024**2), facts, meta)
    assert (edited.meta.edited_height, edited.meta.edited_width) == (1184, 896)
    wanted = pipelines_own(checkpoint(), meta, area=1024**2, negative_prompt=" ")
    assert torch.equal(edited.pixels, wanted)


@pytest.mark.slow
def test_without_guidance_it_is_one_pass_a_step(checkpoint):
    meta = meta_of()
    edited = run_stages(split_stages(checkpoint(), true_cfg_scale=1.0), facts_of(), meta)
    assert (edited.meta.negative_tokens, edited.meta.passes) == (0, STEPS)
    assert torch.equal(edited.pixels, pipelines_own(checkpoint(), meta, true_cfg_scale=1.0))


@pytest.mark.slow
def test_a_pipeline_as_one_stage_is_the_pipeline(checkpoint):
    meta = meta_of()
    edited = run_stages([whole_stage(checkpoint())], facts_of(), meta)
    assert torch.equal(edited.pixels, pipelines_own(checkpoint(), meta, negative_prompt=" "))
    assert (edited.meta.steps, edited.meta.passes) == (STEPS, 2 * STEPS)
    assert edited.progress == [0.5, 1.0]


@pytest.mark.slow
def test_an_edit_depends_on_its_seed_and_on_nothing_before_it(checkpoint):
    stages, facts = split_stages(checkpoint()), facts_of()
    first = run_stages(stages, facts, meta_of())
    torch.manual_seed(99)
    other = run_stages(stages, facts, meta_of(seed=6))
    again = run_stages(stages, facts, meta_of())
    assert torch.equal(first.pixels, again.pixels)
    assert not torch.equal(first.pixels, other.pixels)


@pytest.mark.slow
def test_an_edit_says_what_it_took(checkpoint):
    edited = run_stages(split_stages(checkpoint()), facts_of(), meta_of("x" * 40))
    meta = edited.meta
    assert (meta.steps, meta.passes, edited.progress) == (STEPS, 2 * STEPS, [0.5, 1.0])
    assert (meta.edited_height, meta.edited_width) == edited_size(HEIGHT, WIDTH, SMALL)
    assert meta.prompt_tokens - meta.negative_tokens == 39  # a token a byte, and " " is one
    assert meta.tflop > 0
    for name, count in {"prompt": meta.prompt_tokens, "negative": meta.negative_tokens}.items():
        assert edited.tensors[name][:count].any(dim=1).all()
        assert not edited.tensors[name][count:].any()


@pytest.mark.slow
def test_being_prepared_changes_no_edit_and_costs_once(checkpoint, monkeypatch):
    stages, facts = split_stages(checkpoint()), facts_of()
    before = run_stages(stages, facts, meta_of())
    assert [stage.prepare(facts, 1) for stage in stages] == [1, 1]
    monkeypatch.setattr(type(stages[1]), "_rehearse", None)  # so that a second one would fail
    assert stages[1].prepare(facts, 1) == 1
    assert torch.equal(run_stages(stages, facts, meta_of()).pixels, before.pixels)


def test_an_instruction_of_more_tokens_than_planned_fails_alone(checkpoint):
    prompts, _edit = split_stages(checkpoint())
    with pytest.raises(ValueError, match=r"tokens with its picture, over"):
        run_stages([prompts], facts_of(instruction_bytes=4), meta_of("x" * 500))


def test_an_edit_with_guidance_wants_a_negative_prompt(checkpoint):
    _prompts, edit = split_stages(checkpoint())
    inputs = {
        "source": torch.zeros(9),
        "prompt": torch.zeros(1, 16),
        "negative": torch.zeros(1, 16),
    }
    edited = {"edited": torch.zeros(9)}
    with pytest.raises(ValueError, match="no negative prompt was encoded"):
        edit.run(inputs, edited, Item(index=0, attempt=0, meta=meta_of()))
