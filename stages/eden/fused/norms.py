"""Layer norms with what comes before and after them: residuals, gates, modulation, positions.

Legend: N pairs or frames, L rows of each, C channels.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import triton.language as tl

from stages.eden import layers
from stages.eden.fused.jit import (
    helper,
    kernel,
    padded,
    programs,
    row_stride,
    rows_per_block,
)
from stages.eden.layers import LayerNorm

MAX_ROWS = 16  # a block: more would leave a GPU without enough blocks
NUM_WARPS = 4


class Scaling(NamedTuple):
    """What a modulated norm does last: `* scale + shift`, for each pair; [N, C] float32."""

    scale: torch.Tensor  # 1 is added already
    shift: torch.Tensor


class Residual(NamedTuple):
    """What is added to x before it is normalised, and written back to x."""

    added: torch.Tensor  # [N, L, C]
    gate: torch.Tensor | None = None  # [N, C] float32: of each pair, times `added`


def normalise(
    x: torch.Tensor,
    norm: LayerNorm,
    out: torch.Tensor,
    *,
    residual: Residual | None = None,
    scaling: Scaling | None = None,
    offset: torch.Tensor | None = None,
) -> torch.Tensor:
    """Add the residual to x, write the norm of x to `out`; return `out`.

    Args:
        x: [N, L, C], contiguous; changed if there is a residual.
        norm: of the last dimension.
        out: [N, L, C]; its pairs may lie apart.
        residual: what x still lacks.
        scaling: of the normalised values.
        offset: [C] float32, added to what is normalised, not to x.
    """
    pairs, rows, channels = x.shape
    added, gate = residual or (None, None)
    scale, shift = scaling or (None, None)
    modulation = gate if scale is None else scale
    block = padded(channels)
    tall = rows_per_block(block, MAX_ROWS)
    _normalise[(programs(rows, tall), pairs)](
        x,
        added,
        gate,
        offset,
        norm.weight,
        norm.bias,
        scale,
        shift,
        out,
        rows,
        row_stride(x),
        row_stride(out),
        0 if modulation is None else row_stride(modulation),
        layers.LAYER_NORM_EPS,
        C=channels,
        BLOCK=block,
        ROWS=tall,
        num_warps=NUM_WARPS,
    )
    return out


def normalise_tokens(
    x: torch.Tensor, positions: torch.Tensor, norm: LayerNorm, out: torch.Tensor
) -> None:
    """Write the norm of x + positions to `out`.

    Args:
        x: [N, L, C], may be some of the columns of a wider tensor.
        positions: [L, C] float32.
        norm: of the last dimension.
        out: [N, L, C], contiguous.
    """
    frames, tokens, channels = x.shape
    assert x.stride(0) == tokens * x.stride(1)
    assert x.stride(2) == 1
    assert out.is_contiguous()
    block = padded(channels)
    tall = rows_per_block(block, MAX_ROWS)
    _normalise_tokens[(programs(frames * tokens, tall),)](
        x,
        positions,
        norm.weight,
        norm.bias,
        out,
        frames * tokens,
        tokens,
        x.stride(1),
        layers.LAYER_NORM_EPS,
        C=channels,
        BLOCK=block,
        ROWS=tall,
        num_warps=NUM_WARPS,
    )


@helper
def _norm_of(
    values: tl.tensor,
    is_in: tl.tensor,
    columns: tl.tensor,
    weight: tl.pointer_type,
    bias: tl.pointer_type,
    eps: float,
    C: tl.constexpr,
) -> tl.tensor:
    """The layer norm of each row of `values`, which are 0 where not `is_in`."""
    is_column = columns < C
    mean = tl.sum(values, 1) / C
    values = tl.where(is_in, values - mean[:, None], 0.0)
    inverse = tl.rsqrt(tl.sum(values * values, 1) / C + eps)
    scale = tl.load(weight + columns, mask=is_column, other=0.0).to(tl.float32)
    shift = tl.load(bias + columns, mask=is_column, other=0.0).to(tl.float32)
    return values * inverse[:, None] * scale[None, :] + shift[None, :]


@helper
def _row_of(values: tl.pointer_type, columns: tl.tensor, C: tl.constexpr) -> tl.tensor:
    """One row of C numbers, to be used with all rows of a block."""
    return tl.load(values + columns, mask=columns < C, other=0.0).to(tl.float32)[None, :]


@kernel
def _normalise(
    x: tl.pointer_type,
    added: tl.pointer_type,
    gate: tl.pointer_type,
    offset: tl.pointer_type,
    weight: tl.pointer_type,
    bias: tl.pointer_type,
    scale: tl.pointer_type,
    shift: tl.pointer_type,
    out: tl.pointer_type,
    num_rows: tl.tensor,
    x_stride: tl.tensor,
    out_stride: tl.tensor,
    modulation_stride: tl.tensor,
    eps: float,
    C: tl.constexpr,
    BLOCK: tl.constexpr,
    ROWS: tl.constexpr,
) -> None:
    pair = tl.program_id(1).to(tl.int64)
    rows = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    columns = tl.arange(0, BLOCK)
    is_in = (rows < num_rows)[:, None] & (columns < C)[None, :]
    place = rows[:, None] * C + columns[None, :]
    x += pair * x_stride
    values = tl.load(x + place, mask=is_in, other=0.0).to(tl.float32)
    if added is not None:
        more = tl.load(added + pair * x_stride + place, mask=is_in, other=0.0).to(tl.float32)
        if gate is not None:
            more *= _row_of(gate + pair * modulation_stride, columns, C)
        values += more
        tl.store(x + place, values.to(x.dtype.element_ty), mask=is_in)
    if offset is not None:
        values += _row_of(offset, columns, C)
    values = tl.where(is_in, values, 0.0)
    values = _norm_of(values, is_in, columns, weight, bias, eps, C)
    if scale is not None:
        values *= _row_of(scale + pair * modulation_stride, columns, C)
        values += _row_of(shift + pair * modulation_stride, columns, C)
    tl.store(out + pair * out_stride + place, values.to(out.dtype.element_ty), mask=is_in)


@kernel
def _normalise_tokens(
    x: tl.pointer_type,
    positions: tl.pointer_type,
    weight: tl.pointer_type,
    bias: tl.pointer_type,
    out: tl.pointer_type,
    num_rows: tl.tensor,
    num_tokens: tl.tensor,
    x_stride: tl.tensor,
    eps: float,
    C: tl.constexpr,
    BLOCK: tl.constexpr,
    ROWS: tl.constexpr,
) -> None:
    rows = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    columns = tl.arange(0, BLOCK)
    is_in = (rows < num_rows)[:, None] & (columns < C)[None, :]
    line = rows[:, None].to(tl.int64)
    values = tl.load(x + line * x_stride + columns[None, :], mask=is_in, other=0.0).to(tl.float32)
    at = (rows % num_tokens)[:, None] * C + columns[None, :]
    values += tl.load(positions + at, mask=is_in, other=0.0)
    values = _norm_of(values, is_in, columns, weight, bias, eps, C)
    tl.store(out + line * C + columns[None, :], values.to(out.dtype.element_ty), mask=is_in)
