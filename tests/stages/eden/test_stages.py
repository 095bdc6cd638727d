"""The three stages: what they write, from what, and what they leave alone."""

import math
import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch

from stages.base import Item, Stage, UserError
from stages.eden import Decode, Denoise, Encode
from stages.eden.model import load_eden
from stages.eden.noise import pair_noise, window_noise
from stages.eden.stage import EdenStage
from stages.eden.yuv import planes_to_rgb, rgb_to_planes
from stages.window import WindowMeta

TINY = "random:3:tiny"
KINDS = (Encode, Denoise, Decode)
META = WindowMeta(num_pairs=2, pts=(0, 1, 2), cuts=(False, False))
SIZES = [(32, 32), (50, 38), (65, 107)]  # one block; uneven padding; odd, in 4:4:4


def middle_of_model(facts, frames, first_pair, *, dtype=torch.float32):
    """The window computed by one call of the model."""
    eden = load_eden(TINY, dtype=dtype)
    num_latents = eden.grid(facts.height, facts.width).geometry.num_latents
    shape = (facts.pairs_per_item, num_latents, eden.architecture.latent)
    noise = window_noise(facts.job.seed, first_pair, shape)
    rgb = eden.interpolate(planes_to_rgb(frames, facts), noise)
    out = torch.empty(facts.pairs_per_item, facts.frame_bytes, dtype=torch.uint8)
    rgb_to_planes(rgb, facts, out=out)
    return out


@pytest.mark.parametrize("kind", KINDS)
def test_says_what_the_contract_asks_for(kind, facts_of):
    stage = kind(weights=TINY)
    assert isinstance(stage, Stage)
    assert stage.library == "torch"
    assert tuple(stage.specs(facts_of())) == kind.writes


def test_specs_follow_the_job_and_need_no_load(facts_of):
    facts = facts_of(65, 107, pairs=3)
    specs = {n: s for k in KINDS for n, s in k(weights=TINY, dtype="bfloat16").specs(facts).items()}
    assert {name: (spec.shape, spec.dtype) for name, spec in specs.items()} == {
        "tokens_dit": ((4, 48, 32), "bfloat16"),
        "tokens_dec": ((4, 48, 32), "bfloat16"),
        "stats": ((4, 2), "float32"),
        "difference": ((3, 1), "float32"),
        "latents": ((3, 12, 16), "float32"),
        "middle": ((3, 3 * 65 * 107), "uint8"),
    }


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_the_stages_in_a_row_are_the_model_bit_for_bit(size, dtype, facts_of, frames_of, run_chain):
    facts = facts_of(*size, seed=11)
    frames = frames_of(facts)
    tensors = run_chain(facts, frames, index=4, dtype=dtype)
    expected = middle_of_model(facts, frames, 8, dtype=getattr(torch, dtype))
    assert torch.equal(tensors["middle"], expected)


def test_every_element_is_written(facts_of, frames_of, run_chain):
    # The slots are filled with 0xFF, which is NaN in every floating point type.
    facts = facts_of(50, 38)
    tensors = run_chain(facts, frames_of(facts))
    for name in ("tokens_dit", "tokens_dec", "stats", "difference", "latents"):
        assert not tensors[name].isnan().any(), name
    assert (tensors["middle"] < 255).all()


def test_inputs_are_left_as_they_were(facts_of, frames_of, run_chain, digest, slot):
    facts = facts_of(50, 38)
    tensors = run_chain(facts, frames_of(facts))
    before = digest(tensors)
    for kind in KINDS:
        stage = kind(weights=TINY)
        stage.load("cpu")
        stage.prepare(facts, 2)
        outputs = slot(stage.specs(facts))
        stage.run(tensors, outputs, Item(index=0, attempt=1, meta=META))
        assert digest(outputs) == {name: before[name] for name in outputs}
    assert digest(tensors) == before


def test_inputs_may_be_memory_that_cannot_be_written(facts_of, frames_of, slot):
    facts = facts_of()
    frozen = np.frombuffer(frames_of(facts).numpy().tobytes(), np.uint8)
    assert not frozen.flags.writeable
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # torch knows no memory to read only
        frames = torch.from_numpy(frozen).view(3, -1)
    stage = Encode(weights=TINY)
    stage.load("cpu")
    stage.prepare(facts, 2)
    stage.run({"frames": frames}, slot(stage.specs(facts)), Item(index=0, attempt=0, meta=META))


def test_outputs_are_written_in_place(facts_of, frames_of, run_chain, monkeypatch):
    """No result is made elsewhere and copied: a copy into an output of its shape would show."""
    facts = facts_of()
    outputs = {name for kind in KINDS for name in kind.writes} - {"middle", "stats"}
    copied = []

    class Spy(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            if func is torch.ops.aten.copy_.default:
                copied.append(args[0].data_ptr())
            return func(*args, **(kwargs or {}))

    with Spy():
        tensors = run_chain(facts, frames_of(facts))
    assert not {name for name in outputs if tensors[name].data_ptr() in copied}


def test_a_window_equals_its_pairs_one_by_one(facts_of, frames_of, run_chain):
    facts, alone = facts_of(50, 38, pairs=3), facts_of(50, 38, pairs=1)
    frames = frames_of(facts)
    window = run_chain(facts, frames, index=2)
    for pair in range(3):
        single = run_chain(alone, frames[pair : pair + 2], index=6 + pair)
        torch.testing.assert_close(single["latents"][0], window["latents"][pair], atol=1e-5, rtol=0)
        steps = single["middle"][0].int() - window["middle"][pair].int()
        assert steps.abs().max() <= 1
        assert (steps != 0).float().mean() < 1e-3


def test_noise_is_keyed_by_seed_and_pair_not_by_window():
    windows = [window_noise(5, first, (2, 6, 16)) for first in (0, 2)]
    alone = [pair_noise(5, pair, (6, 16)) for pair in range(4)]
    assert torch.equal(torch.cat(windows), torch.stack(alone))
    assert not torch.equal(alone[0], alone[1])
    assert not torch.equal(alone[0], pair_noise(6, 0, (6, 16)))
    many = pair_noise(0, 0, (1000, 16))
    assert abs(many.mean()) < 0.03
    assert abs(many.std() - 1) < 0.03


def test_the_seed_of_the_job_and_the_index_change_the_result(facts_of, frames_of, run_chain):
    frames = frames_of(facts_of())
    first = run_chain(facts_of(seed=1), frames)["latents"]
    assert torch.equal(first, run_chain(facts_of(seed=1), frames)["latents"])
    assert not torch.equal(first, run_chain(facts_of(seed=2), frames)["latents"])
    assert not torch.equal(first, run_chain(facts_of(seed=1), frames, index=1)["latents"])


def test_black_frames_give_a_finite_result(facts_of, run_chain):
    facts = facts_of()
    frames = torch.full((3, facts.frame_bytes), 128, dtype=torch.uint8)
    frames[:, : facts.width * facts.height] = 16
    tensors = run_chain(facts, frames)
    assert all(t.isfinite().all() for t in tensors.values() if t.is_floating_point())
    assert (tensors["stats"][:, 0] == 0).all()
    black = (0 - 0.990539) / 0.0608093  # a black pixel counts as 0
    assert tensors["difference"].flatten().tolist() == pytest.approx([black] * 2)


class ShortOfMemory(Encode):
    """Can hold windows of two pairs at most."""

    limit = 2

    def _compute(self, inputs, outputs):
        if len(outputs["difference"]) > self.limit:
            raise torch.OutOfMemoryError("CUDA out of memory")
        super()._compute(inputs, outputs)


class WithoutMemory(ShortOfMemory):
    limit = 0


@pytest.mark.parametrize(("asked", "answer"), [(16, 2), (3, 1), (2, 2), (1, 1)])
def test_prepare_halves_the_size_until_it_fits(asked, answer, facts_of):
    stage = ShortOfMemory(weights=TINY)
    stage.load("cpu")
    assert stage.prepare(facts_of(pairs=asked), asked) == answer


def test_prepare_gives_up_when_not_one_pair_fits(facts_of):
    stage = WithoutMemory(weights=TINY)
    stage.load("cpu")
    with pytest.raises(UserError, match="one pair of 32x32 frames does not fit"):
        stage.prepare(facts_of(), 2)


def test_a_stage_serves_jobs_of_other_sizes_after_the_first(facts_of, frames_of, slot):
    stage = Encode(weights=TINY)
    stage.load("cpu")
    for size in SIZES:
        facts = facts_of(*size)
        stage.prepare(facts, 2)
        outputs = slot(stage.specs(facts))
        stage.run({"frames": frames_of(facts)}, outputs, Item(index=0, attempt=0, meta=META))
        assert outputs["tokens_dit"].isfinite().all()


def test_an_unknown_dtype_is_refused():
    with pytest.raises(UserError, match="'float8' is unknown; write one of float32, bfloat16"):
        Encode(weights=TINY, dtype="float8")


@pytest.mark.parametrize("kind", KINDS)
def test_close_may_come_before_load_and_twice(kind):
    stage = kind(weights=TINY)
    stage.close()
    stage.load("cpu")
    stage.close()
    stage.close()


def test_lower_precision_stays_near_float32(facts_of, frames_of, run_chain):
    facts = facts_of(50, 38)
    frames = frames_of(facts)
    full, half = (run_chain(facts, frames, dtype=d)["middle"] for d in ("float32", "bfloat16"))
    error = (full.float() - half.float()).square().mean()
    assert 10 * math.log10(255**2 / error) > 40


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_a_gpu_reads_and_writes_host_memory_and_agrees(dtype, facts_of, frames_of, run_chain):
    facts = facts_of(50, 38)
    frames = frames_of(facts)
    expected = run_chain(facts, frames)
    result = run_chain(facts, frames, dtype=dtype, device="cuda:0")
    assert result["middle"].device.type == "cpu"
    error = (result["middle"].float() - expected["middle"].float()).abs()
    assert error.max() <= (1 if dtype == "float32" else 8)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_writes_gpu_memory_in_place(facts_of, frames_of):
    facts = facts_of()
    stage: EdenStage = Encode(weights=TINY, dtype="bfloat16")
    stage.load("cuda")
    stage.prepare(facts, 2)
    outputs = {
        name: torch.full(spec.shape, 7, dtype=getattr(torch, spec.dtype), device="cuda:0")
        for name, spec in stage.specs(facts).items()
    }
    stage.run({"frames": frames_of(facts)}, outputs, Item(index=0, attempt=0, meta=META))
    assert all((tensor != 7).all() for tensor in outputs.values())


def test_another_job_of_the_same_kind_uses_what_the_last_one_made(facts_of, monkeypatch):
    stage = Encode(weights="random:0:tiny")
    stage.load("cpu")
    facts = facts_of()
    rehearsed = []
    monkeypatch.setattr(stage, "_rehearse", rehearsed.append)
    assert stage.prepare(facts, 2) == 2
    assert stage.prepare(replace(facts, num_frames=99), 2) == 2
    assert rehearsed == [2]
    stage.prepare(replace(facts, color_range="full"), 2)
    stage.prepare(replace(facts, color_range="full"), 1)
    stage.prepare(facts, 2)
    assert rehearsed == [2, 2, 1, 2]
    stage.close()
