"""How far the two frames of each pair are apart: the cosine of their pixels, averaged.

Legend: K pairs, F = K + 1 frames.
"""

from __future__ import annotations

import torch
import triton.language as tl

from stages.eden.architecture import Constants
from stages.eden.encoder import NORM_FLOOR
from stages.eden.fused.jit import helper, kernel, programs

PIXELS = 1024  # a program takes at once
PARTS = 32  # programs a pair, each with one sum of its own


def write_difference(rgb: torch.Tensor, constants: Constants, out: torch.Tensor) -> None:
    """Write the difference [K, 1] of neighbours in rgb [F, 3, height, width], float32."""
    pairs, pixels = rgb.shape[0] - 1, rgb.shape[2] * rgb.shape[3]
    assert rgb.is_contiguous()
    assert out.is_contiguous()
    sums = torch.empty((pairs, PARTS), dtype=torch.float32, device=rgb.device)
    turns = programs(pixels, PIXELS * PARTS)
    _sum_cosines[(pairs, PARTS)](
        rgb, sums, pixels, NORM_FLOOR, TURNS=turns, PARTS=PARTS, PIXELS=PIXELS
    )
    _finish_difference[(pairs,)](
        sums, out, pixels, constants.cos_sim_mean, constants.cos_sim_std, PARTS=PARTS
    )


@helper
def _unit(
    frame: tl.pointer_type, pixel: tl.tensor, is_in: tl.tensor, plane: tl.tensor, floor: float
) -> tl.tensor:
    """Colours of pixels, each of length 1; black stays black."""
    red = tl.load(frame + pixel, mask=is_in, other=0.0)
    green = tl.load(frame + plane + pixel, mask=is_in, other=0.0)
    blue = tl.load(frame + 2 * plane + pixel, mask=is_in, other=0.0)
    length = tl.maximum(tl.sqrt_rn(red * red + green * green + blue * blue), floor)
    return tl.div_rn(red, length), tl.div_rn(green, length), tl.div_rn(blue, length)


@kernel
def _sum_cosines(
    rgb: tl.pointer_type,
    sums: tl.pointer_type,
    num_pixels: tl.tensor,
    floor: float,
    TURNS: tl.constexpr,
    PARTS: tl.constexpr,
    PIXELS: tl.constexpr,
) -> None:
    pair, part = tl.program_id(0).to(tl.int64), tl.program_id(1)
    before = rgb + pair * (3 * num_pixels)
    after = before + 3 * num_pixels
    total = tl.zeros((PIXELS,), tl.float32)
    for turn in range(TURNS):
        pixel = (part * TURNS + turn) * PIXELS + tl.arange(0, PIXELS)
        is_in = pixel < num_pixels
        red, green, blue = _unit(before, pixel, is_in, num_pixels, floor)
        red_after, green_after, blue_after = _unit(after, pixel, is_in, num_pixels, floor)
        total += red * red_after + green * green_after + blue * blue_after
    tl.store(sums + pair * PARTS + part, tl.sum(total, 0))


@kernel
def _finish_difference(
    sums: tl.pointer_type,
    out: tl.pointer_type,
    num_pixels: tl.tensor,
    mean: float,
    std: float,
    PARTS: tl.constexpr,
) -> None:
    pair = tl.program_id(0)
    total = tl.sum(tl.load(sums + pair * PARTS + tl.arange(0, PARTS)).to(tl.float64), 0)
    cosine = (total / num_pixels).to(tl.float32)
    tl.store(out + pair, tl.div_rn(cosine - mean, std))
