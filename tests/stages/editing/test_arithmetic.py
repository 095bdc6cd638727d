"""Sizes, operations and pixels agree with what torch, Pillow and diffusers do."""

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from stages.editing.checkpoint import open_checkpoint
from stages.editing.denoise import pack, unpack
from stages.editing.models import load_edit_half
from stages.editing.pixels import (
    from_vae,
    is_across_first,
    levels,
    resized,
    resized_by_products,
    to_vae,
)
from stages.editing.published import PLAIN, PLUS, PRESETS
from stages.editing.sizes import image_tokens, largest_edit, pass_flop
from tests.stages.editing.conftest import facts_of, picture


@pytest.mark.parametrize("preset", ["tiny", "tinyplus2511"])
def test_a_pass_is_as_many_operations_as_torch_counts(preset):
    found = open_checkpoint(f"random:0:{preset}", (PLAIN, PLUS))
    model = load_edit_half(found, torch.device("cpu"), torch.float32).transformer
    counter = FlopCounterMode(display=False)
    with torch.inference_mode(), sdpa_kernel(SDPBackend.MATH), counter:
        model(
            hidden_states=torch.randn(1, 24 + 12, 64),
            timestep=torch.tensor([0.5]),
            encoder_hidden_states=torch.randn(1, 7, 16),
            img_shapes=[[(1, 4, 6), (1, 3, 4)]],
        )
    assert pass_flop(found.transformer, 36, 7) == counter.get_total_flops()


def test_a_pass_at_a_megapixel_is_198_tflop():
    tokens = 2 * image_tokens((1024, 1024))
    flop = pass_flop(PRESETS["full"].transformer, tokens, 9601 - tokens)
    assert flop / 1e12 == pytest.approx(198, rel=0.01)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ((90, 120), (96, 128)),
        ((120, 90), (32, 64)),
        ((1104, 1472), (896, 1184)),
        ((7, 300), (32, 32)),
        ((1, 1), (32, 32)),
        ((64, 50), (64, 96)),
        ((50, 64), (96, 64)),
        ((300, 90), (60, 20)),  # down first, with Pillow 13
        ((33, 31), (33, 31)),
    ],
)
def test_resizing_by_products_is_pillows_to_the_last_bit(before, after):
    pixels = picture(*before, seed=before[0])
    pixels[: before[0] // 2] = np.where(pixels[: before[0] // 2] > 127, 255, 0)  # overshoots
    height, width = after
    image = Image.fromarray(pixels).resize((width, height), Image.Resampling.LANCZOS)
    order = is_across_first(*before, *after)
    products = resized_by_products(torch.from_numpy(pixels), after, across_first=order)
    assert np.array_equal(products.numpy(), np.array(image))
    assert torch.equal(resized(torch.from_numpy(pixels), after), products)


def test_pixels_come_back_from_between_minus_one_and_one():
    every = torch.arange(256 * 3).remainder(256).to(torch.uint8).view(16, 16, 3)
    out = torch.empty(every.numel(), dtype=torch.uint8)
    cpu = torch.device("cpu")
    from_vae(to_vae(every, levels(cpu), torch.float32)[:, :, 0], out)
    assert torch.equal(out, every.flatten())


def test_packed_latents_come_back():
    latents = torch.randn(1, 16, 6, 10)
    tokens = pack(latents)
    assert tokens.shape == (1, 15, 64)
    assert torch.equal(unpack(tokens, (48, 80))[:, :, 0], latents)


def test_the_largest_edit_is_not_the_largest_source():
    assert largest_edit(facts_of((3000, 3000), (10, 11)), 256**2) == 256 * 256 * 3
    assert largest_edit(facts_of((3000, 3000), (10, 20)), 256**2) == 192 * 352 * 3
