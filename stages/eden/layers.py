"""The layers that EDEN's three networks share. Plain functions of tensors; no shape is kept.

Legend: N pairs (N + 1 frames), L tokens a frame or latents a pair, C channels, H heads,
D channels of a head, S tokens of each frame that one temporal query sees.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F

LAYER_NORM_EPS = 1e-6


@dataclass(frozen=True, slots=True)
class Linear:
    """x @ weight.T + bias."""

    weight: torch.Tensor  # [out, in]
    bias: torch.Tensor | None = None

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """Apply to the last dimension."""
        return F.linear(x, self.weight, self.bias)

    def rows(self, start: int, end: int | None = None) -> Linear:
        """Return the layer that computes these of the outputs only; it shares the weights."""
        bias = None if self.bias is None else self.bias[start:end]
        return Linear(self.weight[start:end], bias)


@dataclass(frozen=True, slots=True)
class LayerNorm:
    """Normalisation of the last dimension, with a weight and a bias of each channel."""

    weight: torch.Tensor
    bias: torch.Tensor

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """Apply to the last dimension."""
        return F.layer_norm(x, self.weight.shape, self.weight, self.bias, LAYER_NORM_EPS)


@dataclass(frozen=True, slots=True)
class Weights:
    """Tensors of a checkpoint, handed out as layers of one dtype on one device."""

    tensors: Mapping[str, torch.Tensor]
    device: torch.device
    dtype: torch.dtype
    prefix: str = ""

    def under(self, name: str) -> Weights:
        """Return the tensors whose names start with `name.`, without it."""
        return replace(self, prefix=f"{self.prefix}{name}.")

    def full(self) -> Weights:
        """Return the same in float32 at least, for small layers where half precision would show."""
        return replace(self, dtype=torch.promote_types(self.dtype, torch.float32))

    def wider(self) -> Weights:
        """Return the same with more digits: float64 instead of float32, float32 instead of half."""
        is_half = self.dtype.itemsize < torch.float32.itemsize
        return replace(self, dtype=torch.float32 if is_half else torch.float64)

    def tensor(self, name: str) -> torch.Tensor:
        """Return a copy, so that nothing of a mapped file is kept."""
        source = self.tensors[self.prefix + name]
        return source.to(self.device, self.dtype, copy=True).contiguous()

    def linear(self, name: str) -> Linear:
        """Return a layer; a patch convolution becomes a matrix of flattened patches."""
        weight = self.tensor(f"{name}.weight").flatten(1)
        has_bias = f"{self.prefix}{name}.bias" in self.tensors
        return Linear(weight, self.tensor(f"{name}.bias") if has_bias else None)

    def norm(self, name: str) -> LayerNorm:
        """Return a layer."""
        return LayerNorm(self.tensor(f"{name}.weight"), self.tensor(f"{name}.bias"))


@dataclass(frozen=True, slots=True)
class FrameKeys:
    """What one block's temporal attention needs of the frames of a window, projected once.

    Both steps and both pairs that a frame belongs to use the same.
    """

    keys: torch.Tensor  # [N + 1, L, S, H, D]
    values: torch.Tensor


@dataclass(frozen=True, slots=True)
class TemporalAttention:
    """Each token looks at itself and at the tokens at its place in the frames around it."""

    norm: LayerNorm
    qkv: Linear
    proj: Linear
    num_heads: int

    def project(self, tokens: torch.Tensor) -> FrameKeys:
        """Return keys and values of the frame tokens [N + 1, L, S, C]; they enter unnormalised."""
        both = self.qkv.rows(tokens.shape[-1])(tokens)
        return FrameKeys(*torch.unflatten(both, -1, (2, self.num_heads, -1)).unbind(-3))

    def __call__(self, x: torch.Tensor, frames: FrameKeys) -> torch.Tensor:
        """Return what is to be added to x [N, L, C]."""
        qkv = torch.unflatten(self.qkv(self.norm(x)), -1, (3, self.num_heads, -1))
        query, key, value = qkv.unbind(-3)
        return self.proj(attend_in_time(query, key, value, frames).flatten(2))


def attend_in_time(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, frames: FrameKeys
) -> torch.Tensor:
    """Return [N, L, H, D]: one query a sequence [S of the frame before, itself, S of the next].

    As products and sums, not as matrix products: these would be of one row, or need a copy of
    all keys and values.
    """
    before, after = frames.keys[:-1], frames.keys[1:]
    scores = torch.cat(
        [_dots(query, before), _dots(query, key[:, :, None]), _dots(query, after)], 2
    )
    shares = torch.softmax(scores * query.shape[-1] ** -0.5, 2).to(value.dtype)
    seen = frames.keys.shape[2]
    to_before, to_own, to_after = torch.split_with_sizes(shares[..., None], [seen, 1, seen], 2)
    mixed = to_own.squeeze(2) * value
    mixed += (to_before * frames.values[:-1]).sum(2)
    mixed += (to_after * frames.values[1:]).sum(2)
    return mixed


def _dots(query: torch.Tensor, keys: torch.Tensor) -> torch.Tensor:
    """Return [N, L, S, H], in float32 at least, of query [N, L, H, D] and keys [N, L, S, H, D]."""
    return (query[:, :, None] * keys).sum(-1, dtype=torch.promote_types(query.dtype, torch.float32))


def attend(qkv: torch.Tensor, num_heads: int) -> torch.Tensor:
    """Return [N, L, C], self attention of [N, L, 3 * C]."""
    heads = torch.unflatten(qkv, -1, (3, num_heads, -1)).permute(2, 0, 3, 1, 4)
    query, key, value = heads.unbind(0)
    return F.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2)


def attend_to(query: torch.Tensor, key_value: torch.Tensor, num_heads: int) -> torch.Tensor:
    """Return [N, L, C]: queries [N, L, C] over the keys and values [N, M, 2 * C]."""
    heads = torch.unflatten(query, -1, (num_heads, -1)).transpose(1, 2)
    pair = torch.unflatten(key_value, -1, (2, num_heads, -1)).permute(2, 0, 3, 1, 4)
    key, value = pair.unbind(0)
    return F.scaled_dot_product_attention(heads, key, value).transpose(1, 2).flatten(2)


@dataclass(frozen=True, slots=True)
class Block:
    """The weights of one transformer block, of the DiT and of the decoder alike."""

    norm_self: LayerNorm
    qkv: Linear
    proj: Linear
    temporal: TemporalAttention
    norm_mlp: LayerNorm
    fc1: Linear
    fc2: Linear

    def mlp(self, x: torch.Tensor) -> torch.Tensor:
        """Return [N, L, C] of the normalised [N, L, C]."""
        return self.fc2(F.gelu(self.fc1(x)))


def make_blocks(weights: Weights, stack: str, depth: int, num_heads: int) -> list[Block]:
    """Return the blocks `stack`.0 to `stack`.(depth - 1)."""
    return [_make_block(weights.under(f"{stack}.{i}"), num_heads) for i in range(depth)]


def _make_block(weights: Weights, num_heads: int) -> Block:
    return Block(
        norm_self=weights.norm("norm_self_attn"),
        qkv=weights.linear("self_attn.qkv"),
        proj=weights.linear("self_attn.proj"),
        temporal=TemporalAttention(
            weights.norm("norm_temp_attn"),
            weights.linear("temp_attn.qkv"),
            weights.linear("temp_attn.proj"),
            num_heads,
        ),
        norm_mlp=weights.norm("norm_mlp"),
        fc1=weights.linear("mlp.fc1"),
        fc2=weights.linear("mlp.fc2"),
    )
