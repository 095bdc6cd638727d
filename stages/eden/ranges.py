"""How large the decoder's numbers can get, whatever frames and latents it is given.

bfloat16 holds numbers of any size with 8 bits, float16 up to 65504 with 11. Everything in a block
comes out of a layer norm, whose rows have a length of sqrt(C): so weights alone set a bound.

Legend: C channels.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import sqrt
from typing import NamedTuple

import torch

from stages.eden.layers import Block, LayerNorm, Linear, TemporalAttention

_MOST = 60000.0  # in float16, less what rounding can add
# Of what the blocks add up. The rest is for what they add it to, which latents set: thousands of
# times as large as those of a video.
_MOST_ADDED = 48000.0


class Peaks(NamedTuple):
    """The largest magnitudes that can be."""

    inside: torch.Tensor  # of a block, but for what it adds
    added: torch.Tensor  # to each channel, [C]


def fits_float16(
    blocks: Sequence[Block], tokens: LayerNorm, last: tuple[LayerNorm, Linear, Linear]
) -> bool:
    """Return whether float16 holds every number between these layers.

    Args:
        blocks: one after the other, adding to the same tokens.
        tokens: the norm that the frames' tokens come out of.
        last: what follows: a norm, and two layers with a GELU in between.
    """
    norm, widen, narrow = last
    wide = _peaks(norm, widen)
    inside = [_peaks(tokens).max(), wide.max(), _sums(narrow, wide).max()]
    added = torch.zeros_like(wide[:1])
    for block in blocks:
        for peaks in _peaks_of(block, tokens):
            inside.append(peaks.inside)
            added = added + peaks.added
    return bool((torch.stack(inside).max() < _MOST) & (added.max() < _MOST_ADDED))


def _peaks_of(block: Block, tokens: LayerNorm) -> list[Peaks]:
    """Return the peaks of the three parts of a block."""
    channels = block.proj.weight.shape[1]
    qkv, wide = _peaks(block.norm_self, block.qkv), _peaks(block.norm_mlp, block.fc1)
    return [
        Peaks(qkv.max(), _sums(block.proj, qkv[2 * channels :])),
        _in_time(block.temporal, tokens),
        Peaks(wide.max(), _sums(block.fc2, wide)),
    ]


def _in_time(attention: TemporalAttention, tokens: LayerNorm) -> Peaks:
    """Return the peaks of this attention; its keys are multiplied with queries one by one."""
    query, key, value = _peaks(attention.norm, attention.qkv).chunk(3)
    other_key, other_value = _peaks(tokens, attention.qkv.rows(len(query))).chunk(2)
    key, value = torch.maximum(key, other_key), torch.maximum(value, other_value)
    inside = torch.stack([query, key, value, query * key]).max()
    return Peaks(inside, _sums(attention.proj, value))


def _peaks(norm: LayerNorm, layer: Linear | None = None) -> torch.Tensor:
    """Return the peak of each output of a norm, or of a layer behind it."""
    scale, shift = norm.weight.float(), norm.bias.float()
    length = sqrt(len(scale))
    if layer is None:
        return length * scale.abs() + shift.abs()
    weight = layer.weight.float()
    constant = weight @ shift if layer.bias is None else weight @ shift + layer.bias.float()
    return length * (weight * scale).square().sum(1).sqrt() + constant.abs()


def _sums(layer: Linear, peaks: torch.Tensor) -> torch.Tensor:
    """Return the peak of each output of a layer whose inputs, or their GELU, have such peaks.

    Shares of attention add up to 1: so what it mixes has the peaks of its values.
    """
    sums = layer.weight.float().abs() @ peaks
    return sums if layer.bias is None else sums + layer.bias.float().abs()
