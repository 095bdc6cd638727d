"""The fused networks against the plain ones and the published references, and who gets which.

Like test_kernels.py, most of this needs a GPU, or Triton and TRITON_INTERPRET=1.
"""

import importlib.util
import logging
import math
import os

import pytest
import torch
from safetensors.torch import load_file

from stages.base import UserError
from stages.eden import Encode
from stages.eden.architecture import Architecture
from stages.eden.layers import Weights
from stages.eden.model import Eden, load_eden
from stages.eden.networks import PLAIN, choose_networks
from stages.eden.random_weights import random_tensor

IS_INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
HAS_TRITON = importlib.util.find_spec("triton") is not None
DEVICE = torch.device("cpu" if IS_INTERPRETED else "cuda:0")
CPU = torch.device("cpu")
TOLERANCE = {"torch": 2e-5, "triton": 1e-4}  # of float32 against the published references


def needs_kernels(test):
    """Mark what runs fused kernels."""
    can_run = HAS_TRITON and (IS_INTERPRETED or torch.cuda.is_available())
    why = "needs Triton, and a GPU or its interpreter"
    return pytest.mark.gpu(pytest.mark.skipif(not can_run, reason=why)(test))


def error(result, expected):
    assert result.shape == expected.shape
    return (result - expected).abs().max().item()


@needs_kernels
@pytest.mark.parametrize("name", ["eden_tiny_random", "eden_odd_batch"])
@pytest.mark.parametrize("kernels", ["torch", "triton"])
def test_both_kernels_reach_the_published_references(name, kernels, golden_dir):
    file = load_file(golden_dir / f"{name}_io.safetensors")
    expected = {name: tensor.to(DEVICE) for name, tensor in file.items()}
    eden = load_eden(str(golden_dir / f"{name}.pt"), device=str(DEVICE), kernels=kernels)
    frames = torch.cat([expected["frame_0"], expected["frame_1"][-1:]])
    with torch.inference_mode():
        grid = eden.grid(*frames.shape[-2:])
        encoded = eden.encode(frames, grid)
        latents = torch.full_like(expected["noise"], math.nan)
        eden.denoiser.denoise(
            expected["noise"], encoded.difference, encoded.tokens_dit, grid, out=latents
        )
        middle = eden.decoder.decode(latents, encoded.tokens_dec, encoded.stats, grid)
    assert error(encoded.difference, expected["difference"]) < TOLERANCE[kernels]
    assert error(latents, expected["latent_t1"]) < TOLERANCE[kernels]
    assert error(middle, expected["frame_mid"]) < TOLERANCE[kernels]


def random_eden(architecture, dtype, kernels):
    """The model `random:2` of any architecture."""
    tensors = {n: random_tensor(architecture, 2, n) for n in architecture.shapes()}
    weights = Weights(tensors, DEVICE, dtype)
    networks = choose_networks(kernels, architecture, DEVICE, dtype)
    return Eden(
        architecture,
        networks.encoder(weights, architecture),
        networks.denoiser(weights, architecture),
        networks.decoder(weights, architecture),
        DEVICE,
        dtype,
    )


ODD = Architecture(
    hidden=100, num_heads=5, dit_depth=2, decoder_depth=1, mlp_hidden=36, patch=5, latent=3
)
SHALLOW = Architecture(
    hidden=64, num_heads=1, dit_depth=1, decoder_depth=2, mlp_hidden=4, patch=16, latent=1
)


@needs_kernels
@pytest.mark.parametrize("architecture", [ODD, SHALLOW], ids=["odd", "shallow"])
@pytest.mark.parametrize("size", [(7, 5), (34, 46)])
def test_any_architecture_and_size_is_computed_as_plain_torch_does(architecture, size):
    generator = torch.Generator().manual_seed(3)
    frames = torch.rand((3, 3, *size), generator=generator).to(DEVICE)
    plain, fused = (random_eden(architecture, torch.float32, k) for k in ("torch", "triton"))
    count = plain.grid(*size).geometry.num_latents
    noise = torch.randn((2, count, architecture.latent), generator=generator).to(DEVICE)
    expected = plain.interpolate(frames, noise)
    assert expected.std() > 0.01
    assert error(fused.interpolate(frames, noise), expected) < 1e-4


@needs_kernels
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_stays_near_single(dtype):
    generator = torch.Generator().manual_seed(4)
    frames = torch.rand((2, 3, 34, 46), generator=generator).to(DEVICE)
    exact, half = random_eden(ODD, torch.float32, "torch"), random_eden(ODD, dtype, "triton")
    count = exact.grid(34, 46).geometry.num_latents
    noise = torch.randn((1, count, 3), generator=generator).to(DEVICE)
    away = exact.interpolate(frames, noise) - half.interpolate(frames, noise)
    assert 10 * math.log10(1 / away.square().mean()) > 45


def test_a_cpu_computes_with_plain_torch():
    assert choose_networks("auto", ODD, CPU, torch.float32) is PLAIN
    assert choose_networks("torch", ODD, CPU, torch.float32) is PLAIN


@pytest.mark.skipif(IS_INTERPRETED, reason="the interpreter needs no GPU")
def test_kernels_are_refused_where_there_is_no_gpu():
    stage = Encode(weights="random:3:tiny", kernels="triton")
    with pytest.raises(UserError, match="kernels: triton cannot be had: kernels need a GPU, and"):
        stage.load("cpu")
    stage.close()


def test_unknown_kernels_are_refused():
    with pytest.raises(UserError, match="'cuda' are unknown; write one of auto, torch, triton"):
        Encode(weights="random:3:tiny", kernels="cuda")


@pytest.mark.parametrize(
    ("architecture", "dtype", "reason"),
    [
        (Architecture(), torch.float64, "no kernels compute in torch.float64"),
        (
            Architecture(hidden=16384),
            torch.float32,
            "kernels hold a hidden size of 8192 at most, and this model's is 16384",
        ),
        (Architecture(num_heads=1, hidden=2048), torch.float32, "hold a head of 1024 at most"),
        (Architecture(patch=128), torch.float32, "hold a patch of 64 at most"),
    ],
)
def test_what_kernels_cannot_hold_goes_to_torch_and_the_log_says_so(
    architecture, dtype, reason, caplog
):
    gpu = torch.device("cuda:0")
    with caplog.at_level(logging.WARNING):
        assert choose_networks("auto", architecture, gpu, dtype) is PLAIN
    assert len(caplog.messages) == 1
    assert reason in caplog.messages[0]
    with pytest.raises(UserError, match=reason.replace("(", r"\(")):
        choose_networks("triton", architecture, gpu, dtype)


@pytest.mark.skipif(HAS_TRITON, reason="Triton is here")
def test_a_gpu_without_triton_computes_with_torch_and_the_log_says_so(caplog):
    assert choose_networks("auto", ODD, torch.device("cuda:0"), torch.float32) is PLAIN
    assert "No module named 'triton'" in caplog.messages[0]
