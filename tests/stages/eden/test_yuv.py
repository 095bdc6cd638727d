"""Planar YUV to RGB and back: against plain float64 formulas, against swscale, round trips."""

import av
import numpy as np
import pytest
import torch

from stages.eden.yuv import planes_to_rgb, rgb_to_planes

MATRICES = {"bt601": (0.299, 0.114), "bt709": (0.2126, 0.0722), "bt2020": (0.2627, 0.0593)}
CODINGS = [(matrix, span) for matrix in MATRICES for span in ("limited", "full")]
FORMATS = [("yuv420p", 34, 46), ("yuv444p", 33, 47)]

every_coding = pytest.mark.parametrize(("matrix", "span"), CODINGS)
every_format = pytest.mark.parametrize(("pixel_format", "height", "width"), FORMATS)


@pytest.fixture
def facts(request, facts_of, pixel_format, height, width, matrix, span):
    return facts_of(height, width, pixel_format=pixel_format, color_matrix=matrix, color_range=span)


def random_rgb(height, width, *, cell=1):
    generator = torch.Generator().manual_seed(height * width)
    rgb = torch.rand(3, 3, -(-height // cell), -(-width // cell), generator=generator)
    rgb = rgb.repeat_interleave(cell, 2).repeat_interleave(cell, 3)
    return rgb[:, :, :height, :width].contiguous()


def steps_of(span):
    return (16, 219, 224) if span == "limited" else (0, 255, 255)


def plain_to_planes(rgb, facts):
    """The definition, in float64: [N, frame_bytes] before rounding."""
    black, luma_steps, chroma_steps = steps_of(facts.color_range)
    red, blue = MATRICES[facts.color_matrix]
    r, g, b = rgb.double().numpy().transpose(1, 0, 2, 3)
    y = red * r + (1 - red - blue) * g + blue * b
    chroma = np.stack([(b - y) / (2 - 2 * blue), (r - y) / (2 - 2 * red)], 1)
    if facts.pixel_format == "yuv420p":
        n, _, h, w = chroma.shape
        chroma = chroma.reshape(n, 2, h // 2, 2, w // 2, 2).mean((3, 5))
    parts = y * luma_steps + black, np.minimum(chroma * chroma_steps + 128, 255)
    return np.concatenate([part.reshape(len(y), -1) for part in parts], 1)


def plain_to_rgb(planes, facts):
    """The definition, in float64: [N, 3, height, width] before clipping."""
    black, luma_steps, chroma_steps = steps_of(facts.color_range)
    red, blue = MATRICES[facts.color_matrix]
    h, w = facts.height, facts.width
    planes = planes.double().numpy()
    y = (planes[:, : h * w].reshape(-1, h, w) - black) / luma_steps
    chroma = (planes[:, h * w :].reshape(-1, 2, *facts.chroma_shape) - 128) / chroma_steps
    repeat = h // facts.chroma_shape[0]
    u, v = chroma.repeat(repeat, 2).repeat(repeat, 3).transpose(1, 0, 2, 3)
    r, b = y + 2 * (1 - red) * v, y + 2 * (1 - blue) * u
    return np.stack([r, (y - red * r - blue * b) / (1 - red - blue), b], 1)


def to_planes(rgb, facts):
    out = torch.full((len(rgb), facts.frame_bytes), 77, dtype=torch.uint8)
    rgb_to_planes(rgb, facts, out=out)
    return out


@every_format
@every_coding
def test_rgb_to_planes_is_the_definition_rounded(facts):
    rgb = random_rgb(facts.height, facts.width)
    exact = plain_to_planes(rgb, facts)
    assert np.abs(to_planes(rgb, facts).numpy() - exact).max() <= 0.5 + 1e-4


@every_format
@every_coding
def test_planes_to_rgb_is_the_definition_clipped(facts):
    generator = torch.Generator().manual_seed(1)
    planes = torch.randint(0, 256, (3, facts.frame_bytes), dtype=torch.uint8, generator=generator)
    exact = plain_to_rgb(planes, facts).clip(0, 1)
    np.testing.assert_allclose(planes_to_rgb(planes, facts).numpy(), exact, atol=1e-6)


@every_format
@every_coding
def test_a_round_trip_from_rgb_stays_within_the_steps_of_yuv(facts):
    rgb = random_rgb(facts.height, facts.width, cell=2)
    result = planes_to_rgb(to_planes(rgb, facts), facts)
    # Half a step of luma and, at worst, of both chroma planes (blue of bt2020 weighs 1.88).
    assert (result - rgb).abs().max() < 0.5 / 219 + 0.5 * 1.9 / 224 + 1e-6


@every_format
@every_coding
def test_a_round_trip_from_yuv_is_exact_for_colours_inside_rgb(facts):
    generator = torch.Generator().manual_seed(2)
    size = facts.height * facts.width
    planes = torch.randint(100, 156, (3, facts.frame_bytes), generator=generator)
    planes[:, size:] = (planes[:, size:] - 128) // 2 + 128
    planes = planes.to(torch.uint8)
    before = planes.clone()
    assert torch.equal(to_planes(planes_to_rgb(planes, facts), facts), before)
    assert torch.equal(planes, before)


@every_coding
@pytest.mark.parametrize(("pixel_format", "height", "width"), FORMATS[:1])
def test_black_is_exactly_zero_and_white_exactly_one(facts):
    black, luma_steps, _ = steps_of(facts.color_range)
    for level, value in ((black, 0.0), (black + luma_steps, 1.0)):
        planes = torch.full((1, facts.frame_bytes), 128, dtype=torch.uint8)
        planes[:, : facts.height * facts.width] = level
        assert (planes_to_rgb(planes, facts) == value).all()


@every_coding
@pytest.mark.parametrize(("pixel_format", "height", "width"), FORMATS[1:])
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
