"""Attention: in time by a kernel of our own, in space by the library that is fastest.

Legend: N pairs (N + 1 frames), L rows of a pair, C channels, H heads, D channels of a head,
S tokens of each frame that one temporal query sees.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
import triton.language as tl
from torch.nn.attention import SDPBackend, sdpa_kernel

from stages.eden.fused.jit import (
    helper,
    kernel,
    padded,
    programs,
    rows_per_block,
)

MAX_QUERIES = 32  # a block
NUM_WARPS = 4

# cuDNN's kernel takes 1 / 1.35 of the time of torch's flash attention on the decoder's shape.
FASTEST_FIRST = [
    SDPBackend.CUDNN_ATTENTION,
    SDPBackend.FLASH_ATTENTION,
    SDPBackend.EFFICIENT_ATTENTION,
    SDPBackend.MATH,
]
CUDNN_CHANNELS = (64, 128)  # of a head: where cuDNN was seen right and fast, on long sequences
CUDNN_TOKENS = 128


def attend(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    """Return [N * L, C] of the query [N, H, L, D] over key and value [N, H, M, D]."""
    pairs, heads, rows, size = query.shape
    if _suits_cudnn(query) and min(rows, key.shape[2]) >= CUDNN_TOKENS:
        with sdpa_kernel(FASTEST_FIRST, set_priority=True):
            mixed = F.scaled_dot_product_attention(query, key, value)
    else:
        mixed = F.scaled_dot_product_attention(query, key, value)
    return mixed.transpose(1, 2).reshape(pairs * rows, heads * size)


def attend_in_time(
    qkv: torch.Tensor, keys_values: torch.Tensor, num_heads: int, out: torch.Tensor
) -> torch.Tensor:
    """Write each query's mixture of itself and of the tokens at its place; return `out`.

    Args:
        qkv: [N * L, 3 * C], contiguous: query, key and value of each row itself.
        keys_values: [N + 1, L, S, 2, C]: of the frames before and after each pair; any strides
            but within S tokens and within C.
        num_heads: of C channels.
        out: [N * L, C], contiguous.
    """
    frames, rows, seen, _, channels = keys_values.shape
    pairs, size = frames - 1, channels // num_heads
    assert qkv.is_contiguous()
    assert out.is_contiguous()
    assert qkv.shape == (pairs * rows, 3 * channels)
    assert keys_values.stride()[3:] == (channels, 1)
    token_stride = keys_values.stride(2) if seen > 1 else keys_values.stride(1)
    assert keys_values.stride(1) == seen * token_stride
    block = padded(size)
    queries = rows_per_block(seen * block, MAX_QUERIES)
    _attend_in_time[(programs(rows * num_heads, queries) * pairs,)](
        qkv,
        keys_values,
        out,
        pairs,
        rows,
        keys_values.stride(0),
        token_stride,
        size**-0.5,
        C=channels,
        H=num_heads,
        D=size,
        S=seen,
        BLOCK=block,
        QUERIES=queries,
        num_warps=NUM_WARPS,
    )
    return out


def _suits_cudnn(query: torch.Tensor) -> bool:
    is_half = query.dtype in (torch.bfloat16, torch.float16)
    return query.is_cuda and is_half and query.shape[3] in CUDNN_CHANNELS


@helper
def _load(source: tl.pointer_type, is_in: tl.tensor) -> tl.tensor:
    return tl.load(source, mask=is_in, other=0.0)


@helper
def _ask(query: tl.tensor, keys: tl.tensor) -> tl.tensor:
    """Scores of each query against the S keys of a frame."""
    return tl.sum(query[:, None, :] * keys.to(tl.float32), 2)


@helper
def _mix(shares: tl.tensor, values: tl.tensor) -> tl.tensor:
    """Sum of the S values of a frame, each by its share."""
    return tl.sum(shares[:, :, None] * values.to(tl.float32), 1)


@kernel
def _attend_in_time(
    qkv: tl.pointer_type,
    keys_values: tl.pointer_type,
    out: tl.pointer_type,
    num_pairs: tl.tensor,
    num_rows: tl.tensor,
    frame_stride: tl.tensor,
    token_stride: tl.tensor,
    temperature: float,
    C: tl.constexpr,
    H: tl.constexpr,
    D: tl.constexpr,
    S: tl.constexpr,
    BLOCK: tl.constexpr,
    QUERIES: tl.constexpr,
) -> None:
    # Neighbouring programs do neighbouring pairs: the frame that these share is in the cache.
    pair = (tl.program_id(0) % num_pairs).to(tl.int64)
    query = (tl.program_id(0) // num_pairs) * QUERIES + tl.arange(0, QUERIES)  # row and head
    row, channel = query // H, (query % H) * D
    inside = tl.arange(0, BLOCK)
    is_in = (row < num_rows)[:, None] & (inside < D)[None, :]
    are_in = is_in[:, None, :]

    token = row[:, None, None].to(tl.int64) * S + tl.arange(0, S)[None, :, None]
    place = token * token_stride + channel[:, None, None] + inside[None, None, :]
    before = keys_values + pair * frame_stride
    after = before + frame_stride
    key_before = _load(before + place, are_in)
    value_before = _load(before + place + C, are_in)
    key_after = _load(after + place, are_in)
    value_after = _load(after + place + C, are_in)

    line = pair * num_rows + row
    own = (line * (3 * C) + channel)[:, None] + inside[None, :]
    asked = _load(qkv + own, is_in).to(tl.float32) * temperature
    key = _load(qkv + own + C, is_in).to(tl.float32)
    value = _load(qkv + own + 2 * C, is_in).to(tl.float32)
    to_own = tl.sum(asked * key, 1)
    to_before = _ask(asked, key_before)
    to_after = _ask(asked, key_after)
    highest = tl.maximum(tl.maximum(tl.max(to_before, 1), tl.max(to_after, 1)), to_own)
    to_before = tl.exp(to_before - highest[:, None])
    to_after = tl.exp(to_after - highest[:, None])
    to_own = tl.exp(to_own - highest)
    total = tl.sum(to_before, 1) + tl.sum(to_after, 1) + to_own
    mixed = _mix(to_before, value_before) + _mix(to_after, value_after)
    mixed = (mixed + to_own[:, None] * value) / total[:, None]
    goal = (line * C + channel)[:, None] + inside[None, :]
    tl.store(out + goal, mixed.to(out.dtype.element_ty), mask=is_in)
