"""Latents into the decoder and the denoiser: enlarged, projected to channels, put in place.

Legend: N pairs, Q latents of a pair, L = 4 * Q tokens, C channels, E channels of a latent.
"""

from __future__ import annotations

import torch
import triton.language as tl

from stages.eden.architecture import Constants
from stages.eden.fused.jit import (
    helper,
    kernel,
    padded,
    programs,
    rows_per_block,
)
from stages.eden.geometry import Geometry
from stages.eden.layers import Linear

MAX_ROWS = 32  # a block
COLUMNS = 128  # a block


def scale_and_upsample(
    latents: torch.Tensor, geometry: Geometry, constants: Constants
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the latents [N, Q, E], float32, as the decoder wants them: as they are, and x2.

    Both are divided by `vae_scaler` and have `vae_shift` added. The second is [N, L, E]: enlarged
    like torch's bicubic interpolation, whose four weights at x2 are constants.
    """
    pairs, _, channels = latents.shape
    assert latents.is_contiguous()
    scaled = torch.empty_like(latents)
    large = torch.empty(
        (pairs, geometry.num_tokens, channels), dtype=latents.dtype, device=latents.device
    )
    block = padded(channels)
    rows = rows_per_block(block, MAX_ROWS)
    _scale_and_upsample[(programs(geometry.num_tokens, rows), pairs)](
        latents,
        scaled,
        large,
        geometry.block_rows,
        geometry.block_columns,
        constants.vae_scaler,
        constants.vae_shift,
        E=channels,
        BLOCK=block,
        ROWS=rows,
    )
    return scaled, large


def embed(
    x: torch.Tensor,
    weight: torch.Tensor,
    layer: Linear,
    positions: torch.Tensor,
    dtype: torch.dtype,
) -> torch.Tensor:
    """Return [N, L, C] in `dtype`: `layer` of x [N, L, E] plus positions [L, C], all float32.

    Args:
        x: contiguous.
        weight: that of the layer, transposed, [E, C], contiguous.
        layer: for its bias.
        positions: of each row.
        dtype: of the result.
    """
    pairs, rows, channels = x.shape
    width = weight.shape[1]
    assert x.is_contiguous()
    assert weight.is_contiguous()
    out = torch.empty((pairs, rows, width), dtype=dtype, device=x.device)
    _embed[(programs(pairs * rows, MAX_ROWS), programs(width, COLUMNS))](
        x,
        weight,
        layer.bias,
        positions,
        out,
        pairs * rows,
        rows,
        E=channels,
        C=width,
        ROWS=MAX_ROWS,
        COLUMNS=COLUMNS,
    )
    return out


@helper
def _tap(tap: tl.constexpr, is_second: tl.tensor) -> tl.tensor:
    """Weight of the sample floor(x) - 1 + tap in the bicubic interpolation (a = -0.75) at x.

    x is 3 / 4 of a sample behind floor(x) for the first of two enlarged samples, 1 / 4 for the
    second, which has the same weights in reverse.
    """
    if tap == 0:
        return tl.where(is_second, -0.10546875, -0.03515625)
    if tap == 1:
        return tl.where(is_second, 0.87890625, 0.26171875)
    if tap == 2:
        return tl.where(is_second, 0.26171875, 0.87890625)
    return tl.where(is_second, -0.03515625, -0.10546875)


@kernel
def _scale_and_upsample(
    latents: tl.pointer_type,
    scaled: tl.pointer_type,
    large: tl.pointer_type,
    block_rows: tl.tensor,
    block_columns: tl.tensor,
    divisor: float,
    shift: float,
    E: tl.constexpr,
    BLOCK: tl.constexpr,
    ROWS: tl.constexpr,
) -> None:
    pair = tl.program_id(1).to(tl.int64)
    token = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    num_latents = block_rows * block_columns
    channel = tl.arange(0, BLOCK)
    is_in = (token < 4 * num_latents)[:, None] & (channel < E)[None, :]
    latents += pair * num_latents * E
    row, column = token // 4 // block_columns, token // 4 % block_columns
    is_lower, is_right = token % 4 // 2, token % 2
    enlarged = tl.zeros((ROWS, BLOCK), tl.float32)
    for down in tl.static_range(4):
        y = tl.minimum(tl.maximum(row + is_lower - 2 + down, 0), block_rows - 1)
        along = tl.zeros((ROWS, BLOCK), tl.float32)
        for right in tl.static_range(4):
            x = tl.minimum(tl.maximum(column + is_right - 2 + right, 0), block_columns - 1)
            place = (y * block_columns + x)[:, None] * E + channel[None, :]
            value = tl.div_rn(tl.load(latents + place, mask=is_in, other=0.0), divisor) + shift
            along += value * _tap(right, is_right == 1)[:, None]
        enlarged += along * _tap(down, is_lower == 1)[:, None]
    place = token[:, None] * E + channel[None, :]
    tl.store(large + pair * (4 * num_latents * E) + place, enlarged, mask=is_in)
    # The first quarter of the programs' tokens counts as latents, too.
    is_latent = is_in & (token < num_latents)[:, None]
    value = tl.div_rn(tl.load(latents + place, mask=is_latent, other=0.0), divisor) + shift
    tl.store(scaled + pair * (num_latents * E) + place, value, mask=is_latent)


@kernel
def _embed(
    x: tl.pointer_type,
    weight: tl.pointer_type,
    bias: tl.pointer_type,
    positions: tl.pointer_type,
    out: tl.pointer_type,
    num_lines: tl.tensor,
    num_rows: tl.tensor,
    E: tl.constexpr,
    C: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
) -> None:
    line = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    column = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    is_line, is_column = line < num_lines, column < C
    is_in = is_line[:, None] & is_column[None, :]
    row, line = line % num_rows, line.to(tl.int64)
    total = tl.zeros((ROWS, COLUMNS), tl.float32)
    for channel in range(E):
        value = tl.load(x + line * E + channel, mask=is_line, other=0.0)
        slope = tl.load(weight + channel * C + column, mask=is_column, other=0.0)
        total += value[:, None] * slope[None, :]
    total += tl.load(bias + column, mask=is_column, other=0.0)[None, :]
    place = row[:, None] * C + column[None, :]
    total += tl.load(positions + place, mask=is_in, other=0.0)
    tl.store(out + line[:, None] * C + column[None, :], total.to(out.dtype.element_ty), mask=is_in)
