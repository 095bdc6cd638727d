"""EDEN's encoder with fused kernels.

Legend: K pairs, L tokens of a frame, C channels.
"""

from __future__ import annotations

import torch

from stages.eden import encoder
from stages.eden.architecture import Architecture
from stages.eden.encoder import Encoded
from stages.eden.fused.difference import write_difference
from stages.eden.fused.norms import normalise_tokens
from stages.eden.fused.pixels import write_patches, write_stats
from stages.eden.geometry import Grid
from stages.eden.layers import Weights


class Encoder(encoder.Encoder):
    """The same weights; padding, normalising and cutting into patches are one kernel."""

    def __init__(self, weights: Weights, architecture: Architecture) -> None:
        super().__init__(weights, architecture)
        self._dtype = weights.dtype

    def encode(self, rgb: torch.Tensor, grid: Grid, *, out: Encoded) -> None:
        """Write `out` for the frames `rgb` [K + 1, 3, height, width] in [0, 1], float32."""
        rgb = rgb.contiguous()
        write_stats(rgb, grid.geometry, out.stats)
        patches = write_patches(rgb, out.stats, grid.geometry, self._dtype)
        both = self._patches(patches).view(rgb.shape[0], grid.geometry.num_tokens, -1)
        for_dit, for_dec = both.tensor_split(2, 2)
        normalise_tokens(for_dit, grid.tokens, self._norm_dit, out.tokens_dit)
        normalise_tokens(for_dec, grid.tokens, self._norm_dec, out.tokens_dec)
        write_difference(rgb, self._constants, out.difference)
