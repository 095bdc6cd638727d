"""Pixels of a window: their statistics, the way into patches, and out of them.

Legend: K pairs, F = K + 1 frames, L tokens of a frame, P pixels of a patch's side.
"""

from __future__ import annotations

import torch
import triton.language as tl

from stages.eden.encoder import STD_FLOOR
from stages.eden.fused.jit import helper, kernel, padded, programs
from stages.eden.geometry import Geometry

PIXELS = 1024  # a program takes at once
PARTS = 64  # programs a frame, each with one sum of its own
NUM_WARPS = 4


def write_stats(rgb: torch.Tensor, geometry: Geometry, out: torch.Tensor) -> None:
    """Write mean and std [F, 2] of the frames rgb [F, 3, height, width], padded as `geometry` says.

    Sums are of differences to each frame's first pixel: nothing is lost where a frame is nearly of
    one colour, and one of a single colour has a std of exactly 0 (plus the floor).
    """
    frames = rgb.shape[0]
    assert rgb.is_contiguous()
    assert out.is_contiguous()
    left, top = geometry.margin
    rows, columns = geometry.padded_size
    count = 3 * rows * columns
    sums = torch.empty((frames, PARTS, 2), dtype=torch.float32, device=rgb.device)
    _sum_pixels[(frames, PARTS)](
        rgb,
        sums,
        geometry.height,
        geometry.width,
        top,
        left,
        rows,
        columns,
        TURNS=programs(count, PIXELS * PARTS),
        PARTS=PARTS,
        PIXELS=PIXELS,
        num_warps=NUM_WARPS,
    )
    _finish_stats[(frames,)](
        rgb, sums, out, 3 * geometry.height * geometry.width, count, STD_FLOOR, PARTS=PARTS
    )


def write_patches(
    rgb: torch.Tensor, stats: torch.Tensor, geometry: Geometry, dtype: torch.dtype
) -> torch.Tensor:
    """Return the normalised patches [F * L, 3 * P * P] of rgb [F, 3, height, width] in `dtype`.

    Args:
        rgb: contiguous, float32; padded as it is read.
        stats: [F, 2], mean and std of each frame.
        geometry: of the frames.
        dtype: of the result.
    """
    frames, patch = rgb.shape[0], geometry.patch
    shape = (frames * geometry.num_tokens, 3 * patch * patch)
    out = torch.empty(shape, dtype=dtype, device=rgb.device)
    left, top = geometry.margin
    _write_patches[(geometry.num_tokens, frames)](
        rgb,
        stats,
        out,
        geometry.height,
        geometry.width,
        top,
        left,
        geometry.block_columns,
        P=patch,
        BLOCK=padded(patch * patch),
        num_warps=NUM_WARPS,
    )
    return out


def read_patches(tokens: torch.Tensor, stats: torch.Tensor, geometry: Geometry) -> torch.Tensor:
    """Return the frames [K, 3, height, width], float32 in [0, 1], of patches [K * L, P * P * 3].

    Args:
        tokens: (row, column, channel) inside; contiguous.
        stats: [K + 1, 2], mean and std of the frames around; each pair takes the mean of two.
        geometry: of the frames.
    """
    pairs, patch = stats.shape[0] - 1, geometry.patch
    assert tokens.is_contiguous()
    assert stats.is_contiguous()
    shape = (pairs, 3, geometry.height, geometry.width)
    out = torch.empty(shape, dtype=torch.float32, device=tokens.device)
    left, top = geometry.margin
    _read_patches[(geometry.num_tokens, pairs)](
        tokens,
        stats,
        out,
        geometry.height,
        geometry.width,
        top,
        left,
        geometry.block_columns,
        P=patch,
        BLOCK=padded(patch * patch),
        num_warps=NUM_WARPS,
    )
    return out


@kernel
def _sum_pixels(
    rgb: tl.pointer_type,
    sums: tl.pointer_type,
    height: tl.tensor,
    width: tl.tensor,
    top: tl.tensor,
    left: tl.tensor,
    padded_rows: tl.tensor,
    padded_columns: tl.tensor,
    TURNS: tl.constexpr,
    PARTS: tl.constexpr,
    PIXELS: tl.constexpr,
) -> None:
    frame, part = tl.program_id(0).to(tl.int64), tl.program_id(1)
    rgb += frame * (3 * height * width)
    pivot = tl.load(rgb)
    plane = padded_rows * padded_columns
    total = tl.zeros((PIXELS,), tl.float32)
    squares = tl.zeros((PIXELS,), tl.float32)
    for turn in range(TURNS):
        pixel = (part * TURNS + turn) * PIXELS + tl.arange(0, PIXELS)
        is_in = pixel < 3 * plane
        y = tl.minimum(tl.maximum(pixel % plane // padded_columns - top, 0), height - 1)
        x = tl.minimum(tl.maximum(pixel % padded_columns - left, 0), width - 1)
        place = (pixel // plane * height + y) * width + x
        value = tl.where(is_in, tl.load(rgb + place, mask=is_in, other=0.0) - pivot, 0.0)
        total += value
        squares += value * value
    goal = sums + (frame * PARTS + part) * 2
    tl.store(goal, tl.sum(total, 0))
    tl.store(goal + 1, tl.sum(squares, 0))


@kernel
def _finish_stats(
    rgb: tl.pointer_type,
    sums: tl.pointer_type,
    out: tl.pointer_type,
    frame_stride: tl.tensor,
    count: tl.tensor,
    floor: float,
    PARTS: tl.constexpr,
) -> None:
    frame = tl.program_id(0).to(tl.int64)
    pivot = tl.load(rgb + frame * frame_stride).to(tl.float64)
    part = sums + (frame * PARTS + tl.arange(0, PARTS)) * 2
    total = tl.sum(tl.load(part).to(tl.float64), 0)
    squares = tl.sum(tl.load(part + 1).to(tl.float64), 0)
    mean = total / count
    variance = (squares - total * mean) / (count - 1)  # unbiased
    std = tl.sqrt_rn(tl.maximum(variance.to(tl.float32), 0.0)) + floor
    tl.store(out + frame * 2, (pivot + mean).to(tl.float32))
    tl.store(out + frame * 2 + 1, std)


@helper
def _corner(
    token: tl.tensor, block_columns: tl.tensor, P: tl.constexpr
) -> tuple[tl.tensor, tl.tensor]:
    """First row and column of a token's pixels in the padded frame; tokens are in block order."""
    block = token // 4
    row = block // block_columns * 2 + token % 4 // 2
    column = block % block_columns * 2 + token % 2
    return row * P, column * P


@kernel
def _write_patches(
    rgb: tl.pointer_type,
    stats: tl.pointer_type,
    out: tl.pointer_type,
    height: tl.tensor,
    width: tl.tensor,
    top: tl.tensor,
    left: tl.tensor,
    block_columns: tl.tensor,
    P: tl.constexpr,
    BLOCK: tl.constexpr,
) -> None:
    token, frame = tl.program_id(0), tl.program_id(1).to(tl.int64)
    mean, std = tl.load(stats + frame * 2), tl.load(stats + frame * 2 + 1)
    first_row, first_column = _corner(token, block_columns, P)
    pixel = tl.arange(0, BLOCK)
    is_in = pixel < P * P
    y = tl.minimum(tl.maximum(first_row + pixel // P - top, 0), height - 1)
    x = tl.minimum(tl.maximum(first_column + pixel % P - left, 0), width - 1)
    source = rgb + frame * (3 * height * width) + y * width + x
    goal = out + (frame * tl.num_programs(0) + token) * (3 * P * P) + pixel
    for channel in tl.static_range(3):
        value = tl.load(source + channel * height * width, mask=is_in, other=0.0)
        value = tl.div_rn(value - mean, std).to(out.dtype.element_ty)
        tl.store(goal + channel * (P * P), value, mask=is_in)


@kernel
def _read_patches(
    tokens: tl.pointer_type,
    stats: tl.pointer_type,
    out: tl.pointer_type,
    height: tl.tensor,
    width: tl.tensor,
    top: tl.tensor,
    left: tl.tensor,
    block_columns: tl.tensor,
    P: tl.constexpr,
    BLOCK: tl.constexpr,
) -> None:
    token, pair = tl.program_id(0), tl.program_id(1).to(tl.int64)
    around = stats + pair * 2
    mean = (tl.load(around) + tl.load(around + 2)) * 0.5
    std = (tl.load(around + 1) + tl.load(around + 3)) * 0.5
    first_row, first_column = _corner(token, block_columns, P)
    pixel = tl.arange(0, BLOCK)
    is_in = pixel < P * P
    y, x = first_row + pixel // P - top, first_column + pixel % P - left
    is_shown = is_in & (y >= 0) & (y < height) & (x >= 0) & (x < width)
    source = tokens + (pair * tl.num_programs(0) + token) * (3 * P * P) + pixel * 3
    goal = out + pair * (3 * height * width) + y * width + x
    for channel in tl.static_range(3):
        value = tl.load(source + channel, mask=is_in, other=0.0).to(tl.float32) * std + mean
        value = tl.minimum(tl.maximum(value, 0.0), 1.0)
        tl.store(goal + channel * height * width, value, mask=is_shown)
