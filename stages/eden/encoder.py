"""EDEN's encoder: the frames of a window become tokens, statistics and differences.

Legend: K pairs, L tokens of a frame, C channels.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F

from stages.eden import layers
from stages.eden.architecture import Architecture
from stages.eden.geometry import Grid
from stages.eden.layers import LayerNorm, Linear, Weights

STD_FLOOR = 1e-8
NORM_FLOOR = 1e-8


@dataclass(frozen=True, slots=True)
class Encoded:
    """What the encoder writes of one window."""

    tokens_dit: torch.Tensor  # [K + 1, L, C], of the model's dtype
    tokens_dec: torch.Tensor  # [K + 1, L, C]
    stats: torch.Tensor  # [K + 1, 2] float32, mean and std of each padded frame
    difference: torch.Tensor  # [K, 1] float32


class Encoder:
    """The weights and the arithmetic; each frame is encoded once, whatever pairs it is in."""

    prefixes = ("patch_cond_dit", "norm_cond_dit", "patch_cond_dec", "norm_cond_dec")

    def __init__(self, weights: Weights, architecture: Architecture) -> None:
        dit, dec = weights.linear("patch_cond_dit"), weights.linear("patch_cond_dec")
        assert dit.bias is not None
        assert dec.bias is not None
        self._patches = Linear(torch.cat([dit.weight, dec.weight]), torch.cat([dit.bias, dec.bias]))
        self._norm_dit = weights.norm("norm_cond_dit")
        self._norm_dec = weights.norm("norm_cond_dec")
        self._constants = architecture.constants

    def encode(self, rgb: torch.Tensor, grid: Grid, *, out: Encoded) -> None:
        """Write `out` for the frames `rgb` [K + 1, 3, height, width] in [0, 1], float32."""
        patches = grid.geometry.patches(grid.geometry.pad(rgb))
        _normalise(patches, out.stats)
        self._write_tokens(patches, grid, out)
        self._write_difference(rgb, out.difference)

    def _write_tokens(self, patches: torch.Tensor, grid: Grid, out: Encoded) -> None:
        pair = self._patches(patches.to(self._patches.weight.dtype))
        pair = torch.unflatten(pair, -1, (2, -1))
        pair += grid.tokens[:, None].to(pair.dtype)
        # Weight and bias of the norms are applied apart: so the last step writes the output.
        pair = F.layer_norm(pair, pair.shape[-1:], eps=layers.LAYER_NORM_EPS)
        _write_affine(pair[:, :, 0], self._norm_dit, out.tokens_dit)
        _write_affine(pair[:, :, 1], self._norm_dec, out.tokens_dec)

    def _write_difference(self, rgb: torch.Tensor, out: torch.Tensor) -> None:
        # In the steps of torch's cosine similarity, which the published code calls, so that both
        # round alike; but each frame is normalised once. A black pixel counts as 0.
        # vector_norm says the same, but over three channels takes 30 times as long on a CPU.
        norms = (rgb * rgb).sum(1, keepdim=True).sqrt_().clamp_min_(NORM_FLOOR)
        units = rgb / norms
        cosines = (units[:-1] * units[1:]).sum(1)
        mean, std = self._constants.cos_sim_mean, self._constants.cos_sim_std
        torch.div(cosines.mean((1, 2)).sub_(mean)[:, None], std, out=out)


def _normalise(patches: torch.Tensor, stats: torch.Tensor) -> None:
    """Change each frame of patches [K + 1, L, pixels] to mean 0, std 1; write what they were."""
    pixels = patches.view(patches.shape[0], -1)
    mean = pixels.mean(1)
    pixels.sub_(mean[:, None])
    variance = (pixels * pixels).sum(1) / (pixels.shape[1] - 1)  # unbiased
    std = variance.sqrt() + STD_FLOOR
    pixels.div_(std[:, None])
    torch.stack([mean, std], 1, out=stats)


def _write_affine(x: torch.Tensor, norm: LayerNorm, out: torch.Tensor) -> None:
    torch.addcmul(norm.bias, x, norm.weight, out=out)
