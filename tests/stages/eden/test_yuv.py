"""Planar YUV to RGB and back: against plain float64 formulas, against swscale, round trips."""

import av
import numpy as np
import pytest
import torch

from stages.eden.yuv import planes_to_rgb, rgb_to_planes

MATRICES = {"bt601": (0.299, 0.114), "bt709": (0.2126, 0.0722), "bt2020": (0.2627, 0.0593)}
CODINGS = [(matrix, span) for matrix in MATRICES for span in ("limited", "full")]
FORMATS = [("yuv420p", 34, 46), ("yuv422p", 34, 46), ("yuv444p", 33, 47)]
DEPTHS = [8, 10]  # what holds for 10 bits holds for 12

every_coding = pytest.mark.parametrize(("matrix", "span"), CODINGS)
every_format = pytest.mark.parametrize(("pixel_format", "height", "width"), FORMATS)
every_depth = pytest.mark.parametrize("depth", DEPTHS)


@pytest.fixture
def depth():
    return 8


@pytest.fixture
def facts(facts_of, pixel_format, height, width, matrix, span, depth):
    values = {"pixel_format": pixel_format, "bit_depth": depth}
    return facts_of(height, width, color_matrix=matrix, color_range=span, **values)


def random_rgb(height, width, *, cell=1):
    generator = torch.Generator().manual_seed(height * width)
    rgb = torch.rand(3, 3, -(-height // cell), -(-width // cell), generator=generator)
    rgb = rgb.repeat_interleave(cell, 2).repeat_interleave(cell, 3)
    return rgb[:, :, :height, :width].contiguous()


def steps_of(facts):
    """Black, white - black, the whole of chroma; neutral chroma; the highest level."""
    unit, highest = 2 ** (facts.bit_depth - 8), 2**facts.bit_depth - 1
    limited = facts.color_range == "limited"
    spans = (16 * unit, 219 * unit, 224 * unit) if limited else (0, highest, highest)
    return (*spans, 128 * unit, highest)


def samples_of(planes, facts):
    """The samples in bytes: little-endian, two of them if there are more than 8 bits."""
    return planes.numpy().view("u1" if facts.bit_depth == 8 else "<u2").astype(np.int64)


def planes_of(samples, facts):
    """The bytes of samples."""
    kind = "u1" if facts.bit_depth == 8 else "<u2"
    return torch.from_numpy(np.ascontiguousarray(samples).astype(kind).view(np.uint8))


def plain_to_planes(rgb, facts):
    """The definition, in float64: samples before rounding."""
    black, luma_steps, chroma_steps, neutral, highest = steps_of(facts)
    red, blue = MATRICES[facts.color_matrix]
    r, g, b = rgb.double().numpy().transpose(1, 0, 2, 3)
    y = red * r + (1 - red - blue) * g + blue * b
    chroma = np.stack([(b - y) / (2 - 2 * blue), (r - y) / (2 - 2 * red)], 1)
    n, _, h, w = chroma.shape
    rows, columns = facts.chroma_shape
    chroma = chroma.reshape(n, 2, rows, h // rows, columns, w // columns).mean((3, 5))
    parts = y * luma_steps + black, np.minimum(chroma * chroma_steps + neutral, highest)
    return np.concatenate([part.reshape(len(y), -1) for part in parts], 1)


def plain_to_rgb(planes, facts):
    """The definition, in float64: [N, 3, height, width] before clipping."""
    black, luma_steps, chroma_steps, neutral, _ = steps_of(facts)
    red, blue = MATRICES[facts.color_matrix]
    h, w = facts.height, facts.width
    samples = samples_of(planes, facts)
    y = (samples[:, : h * w].reshape(-1, h, w) - black) / luma_steps
    chroma = (samples[:, h * w :].reshape(-1, 2, *facts.chroma_shape) - neutral) / chroma_steps
    rows, columns = facts.chroma_shape
    u, v = chroma.repeat(h // rows, 2).repeat(w // columns, 3).transpose(1, 0, 2, 3)
    r, b = y + 2 * (1 - red) * v, y + 2 * (1 - blue) * u
    return np.stack([r, (y - red * r - blue * b) / (1 - red - blue), b], 1)


def to_planes(rgb, facts):
    out = torch.full((len(rgb), facts.frame_bytes), 77, dtype=torch.uint8)
    rgb_to_planes(rgb, facts, out=out)
    return out


@every_depth
@every_format
@every_coding
def test_rgb_to_planes_is_the_definition_rounded(facts):
    rgb = random_rgb(facts.height, facts.width)
    exact = plain_to_planes(rgb, facts)
    found = samples_of(to_planes(rgb, facts), facts)
    assert np.abs(found - exact).max() <= 0.5 + 1e-4 * 2 ** (facts.bit_depth - 8)


@every_depth
@every_format
@every_coding
def test_planes_to_rgb_is_the_definition_clipped(facts):
    levels = 2**facts.bit_depth
    shape = 3, facts.frame_bytes // facts.sample_bytes
    planes = planes_of(np.random.default_rng(1).integers(0, levels, shape), facts)
    exact = plain_to_rgb(planes, facts).clip(0, 1)
    np.testing.assert_allclose(planes_to_rgb(planes, facts).numpy(), exact, atol=1e-6)


@every_depth
@every_format
@every_coding
def test_a_round_trip_from_rgb_stays_within_the_steps_of_yuv(facts):
    rgb = random_rgb(facts.height, facts.width, cell=2)
    result = planes_to_rgb(to_planes(rgb, facts), facts)
    # Half a step of luma and, at worst, of both chroma planes (blue of bt2020 weighs 1.88).
    unit = 2 ** (facts.bit_depth - 8)
    assert (result - rgb).abs().max() < (0.5 / 219 + 0.5 * 1.9 / 224) / unit + 1e-6


@every_depth
@every_format
@every_coding
def test_a_round_trip_from_yuv_is_exact_for_colours_inside_rgb(facts):
    unit, size = 2 ** (facts.bit_depth - 8), facts.height * facts.width
    shape = 3, facts.frame_bytes // facts.sample_bytes
    samples = np.random.default_rng(2).integers(100 * unit, 156 * unit, shape)
    samples[:, size:] = (samples[:, size:] - 128 * unit) // 2 + 128 * unit
    planes = planes_of(samples, facts)
    before = planes.clone()
    assert torch.equal(to_planes(planes_to_rgb(planes, facts), facts), before)
    assert torch.equal(planes, before)


@pytest.mark.parametrize("depth", [8, 10, 12])
def test_alpha_changes_nothing_and_is_not_written(facts_of, depth):
    facts = facts_of(32, 48, bit_depth=depth, has_alpha=True)
    opaque = facts_of(32, 48, bit_depth=depth)
    assert facts.frame_bytes - facts.color_bytes == 32 * 48 * (1 if depth == 8 else 2)
    samples = np.random.default_rng(3).integers(0, 2**depth, (2, 32 * 48 * 5 // 2))
    planes = planes_of(samples, facts)
    rgb = planes_to_rgb(planes, facts)
    assert torch.equal(rgb, planes_to_rgb(planes[:, : facts.color_bytes].contiguous(), opaque))
    out = torch.full((2, facts.color_bytes), 77, dtype=torch.uint8)
    rgb_to_planes(rgb, facts, out=out)
    assert torch.equal(out, to_planes(rgb, opaque))


@every_depth
@every_coding
@pytest.mark.parametrize(("pixel_format", "height", "width"), FORMATS[:1])
def test_black_is_exactly_zero_and_white_exactly_one(facts):
    black, luma_steps, _, neutral, _ = steps_of(facts)
    for level, value in ((black, 0.0), (black + luma_steps, 1.0)):
        samples = np.full((1, facts.frame_bytes // facts.sample_bytes), neutral)
        samples[:, : facts.height * facts.width] = level
        assert (planes_to_rgb(planes_of(samples, facts), facts) == value).all()


@every_coding
@pytest.mark.parametrize(("pixel_format", "height", "width"), FORMATS[2:])
def test_swscale_agrees(facts):
    rgb = random_rgb(facts.height, facts.width, cell=4)[:1]
    planes = to_planes(rgb, facts)
    shape = 3, facts.height, facts.width
    frame = av.VideoFrame.from_ndarray(planes.view(shape).numpy(), format="yuv444p")
    matrix = {"bt601": "ITU601", "bt709": "ITU709", "bt2020": 9}[facts.color_matrix]
    span = {"limited": "MPEG", "full": "JPEG"}[facts.color_range]
    shown = frame.reformat(
        format="rgb24", src_colorspace=matrix, src_color_range=span, dst_color_range="JPEG"
    ).to_ndarray()
    ours = planes_to_rgb(planes, facts)[0].permute(1, 2, 0).numpy() * 255
    assert np.abs(shown - ours).max() < 2.5
