"""In which half precision the decoder computes, and that no number can leave its range."""

import logging
import math

import pytest
import torch

from stages.eden.architecture import PRESETS
from stages.eden.decoder import Decoder
from stages.eden.layers import Weights
from stages.eden.model import load_eden
from stages.eden.noise import window_noise
from stages.eden.random_weights import random_tensor

TINY = PRESETS["tiny"]
TRAINED = "stages/eden/weights/eden_small.safetensors"
CPU = torch.device("cpu")


def decoder_of(dtype=torch.bfloat16, **factors):
    """A random decoder with some of its tensors made larger."""
    tensors = {name: random_tensor(TINY, 3, name) for name in TINY.shapes()}
    for name, factor in factors.items():
        tensors[name] = tensors[name] * factor
    return Decoder(Weights(tensors, CPU, dtype), TINY)


@pytest.mark.parametrize("weights", ["random:3:tiny", "random:0:small", TRAINED])
def test_where_bfloat16_is_asked_for_the_decoder_computes_in_float16(weights, caplog):
    eden = load_eden(weights, dtype=torch.bfloat16)
    assert (eden.denoiser._dtype, eden.decoder._dtype) == (torch.bfloat16, torch.float16)
    assert caplog.messages == []


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16])
def test_other_dtypes_stay_what_they_are(dtype):
    assert decoder_of(dtype)._dtype == dtype


BLOCKS = ("decoder_blocks.0", "decoder_blocks.1")


def both(name, factor):
    """Factors of a tensor of both blocks."""
    return {f"{block}.{name}": factor for block in BLOCKS}


@pytest.mark.parametrize(
    "factors",
    [
        {"norm_cond_dec.weight": 2e4, **both("temp_attn.qkv.weight", 1e-5)},
        {"norm_cond_dec.bias": 4e7, **both("temp_attn.qkv.weight", 1e-7)},
        {"decoder_blocks.0.norm_self_attn.weight": 2e4, **both("self_attn.proj.weight", 1e-5)},
        {"decoder_blocks.1.self_attn.qkv.weight": 2e4, **both("self_attn.proj.weight", 1e-5)},
        {"decoder_blocks.0.self_attn.proj.weight": 2e3},
        {"decoder_blocks.1.norm_temp_attn.bias": 4e6},
        {"decoder_blocks.0.temp_attn.qkv.weight": 100},  # query times key
        {"decoder_blocks.1.temp_attn.proj.weight": 2e3},
        {"decoder_blocks.0.norm_mlp.weight": 2e4, **both("mlp.fc2.weight", 1e-5)},
        {"decoder_blocks.1.mlp.fc1.weight": 2e4, **both("mlp.fc2.weight", 1e-5)},
        {"decoder_blocks.0.mlp.fc1.bias": 4e6, **both("mlp.fc2.weight", 1e-5)},
        {"decoder_blocks.1.mlp.fc2.weight": 2e3},
        {"decoder_blocks.0.mlp.fc2.bias": 4e6},
        both("self_attn.proj.weight", 1000),  # neither block alone
        {"unpatchify.0.weight": 2e4, "unpatchify.3.weight": 1e-5},
        {"unpatchify.1.weight": 2e4, "unpatchify.3.weight": 1e-5},
        {"unpatchify.3.weight": 2e3},
        {"unpatchify.3.bias": 4e6},
        {"unpatchify.3.bias": math.nan},
    ],
    ids=lambda factors: next(iter(factors)),
)
def test_weights_that_could_leave_its_range_are_computed_in_bfloat16(factors, caplog):
    with caplog.at_level(logging.WARNING):
        assert decoder_of(**factors)._dtype == torch.bfloat16
    assert caplog.messages == ["the decoder's weights are too large for float16; less exact"]
    caplog.clear()
    assert decoder_of(**dict.fromkeys(factors, 1.1))._dtype == torch.float16
    assert caplog.messages == []


@torch.inference_mode()
def test_the_worst_inputs_stay_in_range():
    eden = load_eden("random:3:tiny")
    grid = eden.grid(64, 96)
    tokens = torch.full((3, grid.geometry.num_tokens, TINY.hidden), -1e-3)
    tokens[..., 0] = math.sqrt(TINY.hidden)  # all of a norm's length on one channel
    latents = torch.full((2, grid.geometry.num_latents, TINY.latent), 3e3)
    stats = torch.tensor([[0.5, 0.2]]).expand(3, 2)
    middle = decoder_of(**{"decoder_blocks.0.mlp.fc2.weight": 20}).decode(
        latents, tokens, stats, grid
    )
    assert middle.isfinite().all()


@torch.inference_mode()
def test_a_trained_model_in_half_precision_is_50_db_from_single(frames_like_video):
    exact, half = (load_eden(TRAINED, dtype=d) for d in (torch.float32, torch.bfloat16))
    count = exact.grid(96, 160).geometry.num_latents
    noise = window_noise(0, 0, (2, count, exact.architecture.latent))
    away = exact.interpolate(frames_like_video, noise) - half.interpolate(frames_like_video, noise)
    worst = away.square().flatten(1).mean(1).max()
    assert 10 * math.log10(1 / worst) >= 50


@pytest.fixture
def frames_like_video():
    """Three frames [3, 3, 96, 160] of something soft that moves."""
    generator = torch.Generator().manual_seed(5)
    coarse = torch.rand((1, 3, 20, 28), generator=generator)
    large = torch.nn.functional.interpolate(coarse, scale_factor=8, mode="bicubic")[0]
    return torch.stack([large[:, 8 * i : 8 * i + 96, 6 * i : 6 * i + 160] for i in range(3)]).clamp(
        0, 1
    )
