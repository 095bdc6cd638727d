"""Each fused kernel against plain torch in float64, on a GPU.

Without a GPU they run where Triton is installed and TRITON_INTERPRET=1 is set, on the CPU.
"""

import importlib
import math
import os

import pytest
import torch
import torch.nn.functional as F

from stages.eden import decoder, layers, yuv
from stages.eden.architecture import Constants
from stages.eden.geometry import Geometry, make_grid
from stages.eden.layers import FrameKeys, LayerNorm, Linear

pytest.importorskip("triton")
attention, difference, embedding, mlp, norms, pixels, planes = (
    importlib.import_module(f"stages.eden.fused.{name}")
    for name in ("attention", "difference", "embedding", "mlp", "norms", "pixels", "planes")
)

IS_INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
DEVICE = torch.device("cpu" if IS_INTERPRETED else "cuda:0")
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(
        not IS_INTERPRETED and not torch.cuda.is_available(), reason="needs a GPU or an interpreter"
    ),
]

# Of what rounding to the result's dtype may do. Triton's interpreter cuts bfloat16 off.
TOLERANCE = {torch.float32: 2e-6, torch.bfloat16: 2**-7 if IS_INTERPRETED else 2**-8}
every_dtype = pytest.mark.parametrize("dtype", TOLERANCE)
SIZES = [(32, 32), (65, 107), (160, 96)]  # of frames; patches of 16 pixels but where said


@pytest.fixture
def numbers():
    """Fresh random numbers on the device."""
    generator = torch.Generator().manual_seed(5)

    def make(*shape, dtype=torch.float32, scale=1.0):
        return (torch.randn(shape, generator=generator) * scale).to(DEVICE, dtype)

    return make


@pytest.fixture
def colours():
    """Fresh random frames on the device; some pixels are black."""
    generator = torch.Generator().manual_seed(6)

    def make(count, height, width):
        rgb = torch.rand((count, 3, height, width), generator=generator)
        return (rgb * (torch.rand((count, 1, height, width), generator=generator) > 0.1)).to(DEVICE)

    return make


def poisoned(*shape, dtype=torch.float32):
    return torch.full(shape, math.nan, dtype=dtype, device=DEVICE)


def assert_near(result, exact, *, digits=None):
    """Compare with the exact result, as near as the result's dtype allows."""
    scale = max(1.0, exact.abs().max().item())
    error = (result.double() - exact).abs().max().item()
    assert error <= (digits or TOLERANCE[result.dtype]) * scale, error


def norm_of(numbers, channels, dtype):
    return LayerNorm(1 + numbers(channels, scale=0.1).to(dtype), numbers(channels, dtype=dtype))


def exact_norm(x, norm):
    return F.layer_norm(x, x.shape[-1:], norm.weight.double(), norm.bias.double(), 1e-6)


@every_dtype
@pytest.mark.parametrize("channels", [100, 768])
@pytest.mark.parametrize("rows", [1, 21])
def test_norms_add_what_is_missing_and_scale(channels, rows, dtype, numbers):
    norm, wide = norm_of(numbers, channels, dtype), numbers(3, 6, channels)
    gate, scale, shift = wide[:, 1], wide[:, 2], wide[:, 4]
    offset = numbers(channels)
    for gated, scaled, shifted in (
        (None, False, False),
        (None, True, False),
        (None, False, True),
        (False, False, False),
        (True, True, False),
    ):
        x, added = (numbers(3, rows, channels, dtype=dtype) for _ in range(2))
        summed = x.double()
        if gated is not None:
            summed = summed + added.double() * (gate[:, None].double() if gated else 1.0)
        exact = exact_norm(summed + offset if shifted else summed, norm)
        if scaled:
            exact = exact * scale[:, None] + shift[:, None]
        out = poisoned(3, rows + 2, channels, dtype=dtype)
        norms.normalise(
            x,
            norm,
            out[:, 1:-1],
            residual=None if gated is None else norms.Residual(added, gate if gated else None),
            scaling=norms.Scaling(scale, shift) if scaled else None,
            offset=offset if shifted else None,
        )
        assert_near(out[:, 1:-1], exact)
        assert_near(x, summed)
        assert out[:, [0, -1]].isnan().all()


@every_dtype
@pytest.mark.parametrize("channels", [100, 768])
def test_norms_of_tokens_add_their_positions(channels, dtype, numbers):
    wide, positions = numbers(3, 12, 2 * channels, dtype=dtype), numbers(12, channels)
    norm, out = norm_of(numbers, channels, dtype), poisoned(3, 12, channels, dtype=dtype)
    for x in wide.tensor_split(2, 2):
        norms.normalise_tokens(x, positions, norm, out)
        assert_near(out, exact_norm(x.double() + positions, norm))


@every_dtype
@pytest.mark.parametrize("seen", [1, 4])
@pytest.mark.parametrize(("heads", "size"), [(12, 64), (5, 20)])
def test_attention_in_time_sees_both_frames_and_itself(heads, size, seen, dtype, numbers):
    pairs, rows, channels = 3, 7, heads * size
    qkv = numbers(pairs * rows, 3 * channels, dtype=dtype)
    every_block = numbers(pairs + 1, rows, seen, 3, 2, channels, dtype=dtype)
    keys_values, out = every_block[:, :, :, 1], poisoned(pairs * rows, channels, dtype=dtype)
    attention.attend_in_time(qkv, keys_values, heads, out)
    query, key, value = qkv.double().view(pairs, rows, 3, heads, size).unbind(2)
    both = keys_values.double().view(pairs + 1, rows, seen, 2, heads, size).unbind(3)
    exact = layers.attend_in_time(query, key, value, FrameKeys(*both))
    assert_near(out, exact.reshape(out.shape))


@pytest.mark.parametrize("seen", [1, 4])
def test_attention_in_time_bears_large_scores(seen, numbers):
    qkv, keys_values = poisoned(2 * 5, 3 * 64), poisoned(3, 5, seen, 2, 64)
    qkv[:, :128], keys_values[:, :, :, 0] = 20.0, 20.0  # exp of such scores is infinite
    qkv[:, 128:], keys_values[:, :, :, 1] = numbers(10, 64), numbers(3, 5, seen, 64)
    result = attention.attend_in_time(qkv, keys_values, 1, poisoned(2 * 5, 64))
    values = keys_values[:, :, :, 1].double()
    own = qkv[:, 128:].double().view(2, 5, 1, 64)
    exact = torch.cat([values[:-1], own, values[1:]], 2).mean(2)
    assert_near(result, exact.view(10, 64))


@every_dtype
@pytest.mark.parametrize(("heads", "size"), [(4, 16), (2, 64)])
@pytest.mark.parametrize(("rows", "others"), [(1, 1), (150, 40)])
def test_attention_in_space(heads, size, rows, others, dtype, numbers):
    qkv = numbers(2, rows + others, 3, heads, size, dtype=dtype).permute(2, 0, 3, 1, 4)
    query, key, value = qkv.unbind(0)
    result = attention.attend(query[:, :, :rows], key, value)
    shares = torch.softmax(query[:, :, :rows].double() @ key.double().mT * size**-0.5, -1)
    exact = (shares @ value.double()).transpose(1, 2).reshape(2 * rows, heads * size)
    assert_near(result, exact, digits=1e-5 if dtype == torch.float32 else 2**-7)


@every_dtype
@pytest.mark.parametrize("count", [1, 2048, 5000])
def test_gelu_is_the_exact_one(count, dtype, numbers):
    x = numbers(count, dtype=dtype, scale=4.0)
    exact = F.gelu(x.double())
    assert mlp.gelu_(x) is x
    assert_near(x, exact)
    if dtype == torch.float32:
        torch.testing.assert_close(x.double(), exact, rtol=4e-7, atol=4e-7)
    edge = torch.tensor([-100.0, -0.0, 100.0, 1e4], dtype=dtype, device=DEVICE)
    assert torch.equal(mlp.gelu_(edge.clone()), F.gelu(edge.double()).to(dtype))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("channels", [3, 16])
def test_latents_are_enlarged_like_torch_does(size, channels, numbers):
    geometry, constants = Geometry(*size, patch=8), Constants(vae_scaler=0.7, vae_shift=-0.3)
    latents = numbers(2, geometry.num_latents, channels)
    scaled, large = embedding.scale_and_upsample(latents, geometry, constants)
    exact = latents.double() / 0.7 - 0.3
    assert_near(scaled, exact)
    assert_near(large, geometry.upsample(exact))


@every_dtype
@pytest.mark.parametrize(("channels", "width"), [(3, 100), (16, 768)])
def test_embedding_is_projection_and_position(channels, width, dtype, numbers):
    layer = Linear(numbers(width, channels), numbers(width))
    x, positions = numbers(2, 35, channels), numbers(35, width)
    weight = layer.weight.t().contiguous()
    result = embedding.embed(x, weight, layer, positions, dtype)
    exact = F.linear(x.double(), layer.weight.double(), layer.bias.double()) + positions
    assert result.dtype == dtype
    assert_near(result, exact)


def exact_stats(rgb, geometry):
    std, mean = torch.std_mean(geometry.pad(rgb.double()), dim=(1, 2, 3))
    return torch.stack([mean, std + 1e-8], 1)


@pytest.mark.parametrize("size", SIZES)
def test_statistics_are_those_of_the_padded_frame(size, colours):
    geometry, rgb, stats = Geometry(*size, patch=16), colours(3, *size), poisoned(3, 2)
    rgb[1] = 0.5 + (rgb[1] - 0.5) * 1e-3  # nearly of one colour
    pixels.write_stats(rgb, geometry, stats)
    torch.testing.assert_close(stats.double(), exact_stats(rgb, geometry), rtol=3e-6, atol=0)


def test_a_frame_of_one_colour_has_no_spread():
    stats, geometry = poisoned(3, 2), Geometry(50, 38, patch=16)
    rgb = torch.tensor([0.0, 0.3, 1.0], device=DEVICE)[:, None, None, None]
    pixels.write_stats(rgb.expand(3, 3, 50, 38).contiguous(), geometry, stats)
    assert torch.equal(stats[:, 0], rgb.flatten())
    assert torch.equal(stats[:, 1], torch.full_like(stats[:, 1], 1e-8))


@pytest.mark.parametrize("size", SIZES)
def test_difference_is_the_mean_cosine(size, colours):
    rgb, out, constants = colours(4, *size), poisoned(3, 1), Constants()
    difference.write_difference(rgb, constants, out)
    cosines = F.cosine_similarity(rgb[:-1].double(), rgb[1:].double(), dim=1).mean((1, 2))
    exact = (cosines - constants.cos_sim_mean) / constants.cos_sim_std
    torch.testing.assert_close(out[:, 0].double(), exact, rtol=3e-6, atol=3e-6)


@every_dtype
@pytest.mark.parametrize(("size", "patch"), [*((size, 16) for size in SIZES), ((34, 46), 5)])
def test_patches_are_normalised_and_in_block_order(size, patch, dtype, colours):
    geometry, rgb = Geometry(*size, patch), colours(2, *size)
    stats = exact_stats(rgb, geometry).float()
    result = pixels.write_patches(rgb, stats, geometry, dtype)
    mean, std = stats.double()[:, :, None, None].unbind(1)
    exact = (geometry.patches(geometry.pad(rgb.double())) - mean) / std
    assert_near(result, exact.flatten(0, 1))


@every_dtype
@pytest.mark.parametrize(("size", "patch"), [*((size, 16) for size in SIZES), ((34, 46), 5)])
def test_patches_become_the_shown_part_of_frames(size, patch, dtype, numbers):
    geometry = Geometry(*size, patch)
    tokens = numbers(2 * geometry.num_tokens, 3 * patch * patch, dtype=dtype)
    stats = torch.tensor([[0.4, 0.2], [0.5, 0.3], [0.2, 0.1]], device=DEVICE)
    result = pixels.read_patches(tokens, stats, geometry)
    exact_tokens = tokens.double().view(2, geometry.num_tokens, -1)
    around = (stats[:-1] + stats[1:]).double() / 2
    assert_near(result, decoder._to_frames(exact_tokens, around, geometry))
    assert result.min() == 0
    assert result.max() == 1


@pytest.mark.parametrize("depth", [8, 10, 12])
@pytest.mark.parametrize(
    ("pixel_format", "height", "width"),
    [("yuv420p", 34, 46), ("yuv422p", 35, 46), ("yuv444p", 33, 47)],
)
@pytest.mark.parametrize("matrix", ["bt601", "bt709", "bt2020"])
@pytest.mark.parametrize("span", ["limited", "full"])
def test_planes_are_read_and_written_as_defined(
    pixel_format, height, width, matrix, span, depth, facts_of
):
    values = {"pixel_format": pixel_format, "color_matrix": matrix, "color_range": span}
    facts = facts_of(height, width, bit_depth=depth, has_alpha=matrix == "bt601", **values)
    generator = torch.Generator().manual_seed(depth)
    shape = (3, facts.frame_bytes // facts.sample_bytes)
    samples = torch.randint(0, 2**depth, shape, generator=generator, dtype=torch.int16)
    frames = samples.to(torch.uint8) if depth == 8 else samples.view(torch.uint8)
    frames = frames.to(DEVICE)
    expected = yuv.planes_to_rgb(frames.cpu(), facts)
    rgb = planes.planes_to_rgb(frames, facts)
    torch.testing.assert_close(rgb.cpu(), expected, rtol=0, atol=2e-7)
    steps = []
    for write, source in ((planes.rgb_to_planes, rgb), (yuv.rgb_to_planes, rgb.cpu())):
        out = torch.full((3, facts.color_bytes), 255, dtype=torch.uint8, device=source.device)
        write(source, facts, out=out)
        steps.append((out if depth == 8 else out.view(torch.int16)).cpu().int())
    away = (steps[0] - steps[1]).abs()
    assert away.max() <= 1  # one rounding of float32 more or less, next to half a step
    assert (away > 0).float().mean() < 2e-3


def test_positions_reach_the_tokens_they_belong_to(numbers):
    """The grid's tables are in block order, as patches and enlarged latents are."""
    grid = make_grid(Geometry(64, 96, 16), 64, DEVICE)
    layer = Linear(torch.zeros(64, 1, device=DEVICE), torch.zeros(64, device=DEVICE))
    weight = layer.weight.t().contiguous()
    x = numbers(1, grid.geometry.num_tokens, 1)
    result = embedding.embed(x, weight, layer, grid.tokens, torch.float32)
    assert torch.equal(result[0], grid.tokens)
