"""Planar YUV to RGB and back on a GPU; stages/eden/yuv.py is the definition.

Legend: F frames. A chroma sample stands for TALL x WIDE pixels.
"""

from __future__ import annotations

import torch
import triton.language as tl

from stages.eden.fused.jit import (
    Kernel,
    helper,
    kernel,
    programs,
    row_stride,
)
from stages.eden.yuv import Coding, coding_of
from stages.window import VideoFacts

SAMPLES = 512  # of chroma, a program


def planes_to_rgb(frames: torch.Tensor, facts: VideoFacts) -> torch.Tensor:
    """Return RGB [F, 3, height, width], float32 in [0, 1], of planar YUV frames.

    Args:
        frames: [F, frame_bytes] uint8, planes one after the other; alpha is ignored; not changed.
        facts: size, format, depth, matrix and range.
    """
    shape = (frames.shape[0], 3, facts.height, facts.width)
    out = torch.empty(shape, dtype=torch.float32, device=frames.device)
    _launch(_planes_to_rgb, _samples(frames, facts), out, facts)
    return out


def rgb_to_planes(rgb: torch.Tensor, facts: VideoFacts, *, out: torch.Tensor) -> None:
    """Write RGB frames to `out` as planar YUV, rounded to the nearest step.

    Args:
        rgb: [F, 3, height, width], float32 in [0, 1], contiguous.
        facts: size, format, depth, matrix and range.
        out: [F, color_bytes] uint8; every byte is written.
    """
    _launch(_rgb_to_planes, _samples(out, facts), rgb, facts)


def _samples(frames: torch.Tensor, facts: VideoFacts) -> torch.Tensor:
    return frames if facts.sample_bytes == 1 else frames.view(torch.int16)


def _launch(function: Kernel, samples: torch.Tensor, rgb: torch.Tensor, facts: VideoFacts) -> None:
    assert rgb.is_contiguous()
    coding: Coding = coding_of(facts)
    rows, columns = facts.chroma_shape
    function[(programs(rows * columns, SAMPLES), rgb.shape[0])](
        samples,
        rgb,
        row_stride(samples),
        rows,
        columns,
        coding.red,
        coding.green,
        coding.blue,
        coding.red_slope,
        coding.blue_slope,
        coding.black,
        coding.luma_steps,
        coding.chroma_steps,
        coding.neutral,
        coding.highest,
        TALL=facts.height // rows,
        WIDE=facts.width // columns,
        SAMPLES=SAMPLES,
    )


@helper
def _shown(value: tl.tensor) -> tl.tensor:
    return tl.minimum(tl.maximum(value, 0.0), 1.0)


@helper
def _to_steps(value: tl.tensor, steps: float, zero: float, highest: float) -> tl.tensor:
    """Whole steps, ties to even: at this magnitude float32 has no digits behind the point."""
    value = value * steps + zero
    value = (value + 12582912.0) - 12582912.0
    return tl.minimum(tl.maximum(value, 0.0), highest)


@kernel
def _planes_to_rgb(
    samples: tl.pointer_type,
    rgb: tl.pointer_type,
    frame_stride: tl.tensor,
    rows: tl.tensor,
    columns: tl.tensor,
    red: float,
    green: float,
    blue: float,
    red_slope: float,
    blue_slope: float,
    black: float,
    luma_steps: float,
    chroma_steps: float,
    neutral: float,
    highest: float,
    TALL: tl.constexpr,
    WIDE: tl.constexpr,
    SAMPLES: tl.constexpr,
) -> None:
    frame = tl.program_id(1).to(tl.int64)
    place = tl.program_id(0) * SAMPLES + tl.arange(0, SAMPLES)
    is_in = place < rows * columns
    width, plane = columns * WIDE, rows * TALL * columns * WIDE
    samples += frame * frame_stride
    chroma = samples + plane + place
    u = tl.load(chroma, mask=is_in, other=0).to(tl.float32)
    v = tl.load(chroma + rows * columns, mask=is_in, other=0).to(tl.float32)
    more_blue = tl.div_rn(u - neutral, chroma_steps) * blue_slope
    more_red = tl.div_rn(v - neutral, chroma_steps) * red_slope
    more_green = -more_blue * tl.div_rn(blue, green) - more_red * tl.div_rn(red, green)
    first = place // columns * TALL * width + place % columns * WIDE
    for down in tl.static_range(TALL):
        for right in tl.static_range(WIDE):
            pixel = first + down * width + right
            luma = tl.load(samples + pixel, mask=is_in, other=0).to(tl.float32)
            luma = tl.div_rn(luma - black, luma_steps)
            goal = rgb + frame * (3 * plane) + pixel
            tl.store(goal, _shown(luma + more_red), mask=is_in)
            tl.store(goal + plane, _shown(luma + more_green), mask=is_in)
            tl.store(goal + 2 * plane, _shown(luma + more_blue), mask=is_in)


@kernel
def _rgb_to_planes(
    samples: tl.pointer_type,
    rgb: tl.pointer_type,
    frame_stride: tl.tensor,
    rows: tl.tensor,
    columns: tl.tensor,
    red: float,
    green: float,
    blue: float,
    red_slope: float,
    blue_slope: float,
    black: float,
    luma_steps: float,
    chroma_steps: float,
    neutral: float,
    highest: float,
    TALL: tl.constexpr,
    WIDE: tl.constexpr,
    SAMPLES: tl.constexpr,
) -> None:
    frame = tl.program_id(1).to(tl.int64)
    place = tl.program_id(0) * SAMPLES + tl.arange(0, SAMPLES)
    is_in = place < rows * columns
    width, plane = columns * WIDE, rows * TALL * columns * WIDE
    samples += frame * frame_stride
    first = place // columns * TALL * width + place % columns * WIDE
    reds = tl.zeros((SAMPLES,), tl.float32)
    greens = tl.zeros((SAMPLES,), tl.float32)
    blues = tl.zeros((SAMPLES,), tl.float32)
    for down in tl.static_range(TALL):
        for right in tl.static_range(WIDE):
            pixel = first + down * width + right
            source = rgb + frame * (3 * plane) + pixel
            r = tl.load(source, mask=is_in, other=0.0)
            g = tl.load(source + plane, mask=is_in, other=0.0)
            b = tl.load(source + 2 * plane, mask=is_in, other=0.0)
            luma = _to_steps(r * red + g * green + b * blue, luma_steps, black, highest)
            tl.store(samples + pixel, luma.to(samples.dtype.element_ty), mask=is_in)
            reds += r
            greens += g
            blues += b
    r, g, b = reds / (TALL * WIDE), greens / (TALL * WIDE), blues / (TALL * WIDE)
    luma = r * red + g * green + b * blue
    u = _to_steps(tl.div_rn(b - luma, blue_slope), chroma_steps, neutral, highest)
    v = _to_steps(tl.div_rn(r - luma, red_slope), chroma_steps, neutral, highest)
    chroma = samples + plane + place
    tl.store(chroma, u.to(samples.dtype.element_ty), mask=is_in)
    tl.store(chroma + rows * columns, v.to(samples.dtype.element_ty), mask=is_in)
