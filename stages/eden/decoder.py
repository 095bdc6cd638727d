"""EDEN's decoder: latents and frame tokens become the frame between, in RGB.

Legend: K pairs, Q latents of a pair, L = 4 * Q tokens of a frame, C channels, P pixels of a
patch's side.
"""

from __future__ import annotations

import logging
from dataclasses import replace

import torch
import torch.nn.functional as F

from stages.eden.architecture import Architecture
from stages.eden.geometry import Geometry, Grid
from stages.eden.layers import Block, FrameKeys, Weights, attend_to, make_blocks
from stages.eden.ranges import fits_float16

logger = logging.getLogger(__name__)


class Decoder:
    """The weights and the arithmetic.

    Where bfloat16 is asked for, it computes in float16 if the weights prove that no number leaves
    its range: a trained decoder tells places apart by large attention scores, and keys of 8 bits
    cost 10 dB. It takes the same time.
    """

    # The last only for its range: the encoder's tokens come out of it.
    prefixes = ("proj_token", "decoder_blocks", "unpatchify", "norm_cond_dec")

    def __init__(self, weights: Weights, architecture: Architecture) -> None:
        self._constants = architecture.constants
        if weights.dtype != torch.bfloat16:
            self._load(weights, architecture)
            return
        self._load(replace(weights, dtype=torch.float16), architecture)
        last = (self._norm, self._widen, self._to_pixels)
        if not fits_float16(self._blocks, weights.norm("norm_cond_dec"), last):
            logger.warning("the decoder's weights are too large for float16; less exact")
            self._load(weights, architecture)

    def _load(self, weights: Weights, architecture: Architecture) -> None:
        self._dtype = weights.dtype
        self._proj_token = weights.full().linear("proj_token")
        self._blocks = make_blocks(
            weights, "decoder_blocks", architecture.decoder_depth, architecture.num_heads
        )
        self._norm = weights.norm("unpatchify.0")
        self._widen = weights.linear("unpatchify.1")
        self._to_pixels = weights.linear("unpatchify.3")

    def decode(
        self, latents: torch.Tensor, tokens: torch.Tensor, stats: torch.Tensor, grid: Grid
    ) -> torch.Tensor:
        """Return the frames between, [K, 3, height, width] in [0, 1], float32.

        Args:
            latents: [K, Q, latent] float32, as the denoiser writes them.
            tokens: [K + 1, L, C], the encoder's `tokens_dec`.
            stats: [K + 1, 2] float32, mean and std of each frame; half precision would cost 10 dB.
            grid: of the window's frames.
        """
        recon, query = self._embed(latents, grid)
        at_place = tokens[:, :, None].to(self._dtype)
        for block in self._blocks:
            _apply(block, recon, query, block.temporal.project(at_place))
        pixels = self._to_pixels(F.gelu(self._widen(self._norm(recon)))).to(stats.dtype)
        return _to_frames(pixels, (stats[:-1] + stats[1:]) / 2, grid.geometry)

    def _embed(self, latents: torch.Tensor, grid: Grid) -> tuple[torch.Tensor, torch.Tensor]:
        """Return recon [K, L, C] and query [K, Q, C].

        Enlarging and projecting are both linear: the few latent channels are enlarged.
        """
        latents = latents / self._constants.vae_scaler + self._constants.vae_shift
        recon = self._proj_token(grid.geometry.upsample(latents)) + grid.tokens
        query = self._proj_token(latents) + grid.latents
        return recon.to(self._dtype), query.to(self._dtype)


def _apply(block: Block, recon: torch.Tensor, query: torch.Tensor, frames: FrameKeys) -> None:
    """Change recon [K, L, C] as one block does; only its own tokens ask, all are looked at."""
    channels = recon.shape[-1]
    asking = block.norm_self(recon)
    everything = torch.cat([asking, block.norm_self(query)], 1)
    recon += block.proj(
        attend_to(
            block.qkv.rows(0, channels)(asking),
            block.qkv.rows(channels)(everything),
            block.temporal.num_heads,
        )
    )
    recon += block.temporal(recon, frames)
    recon += block.mlp(block.norm_mlp(recon))


def _to_frames(pixels: torch.Tensor, stats: torch.Tensor, geometry: Geometry) -> torch.Tensor:
    """Return [K, 3, height, width] of pixels [K, L, P * P * 3]; stats [K, 2] of each pair."""
    mean, std = stats[:, None, None].unbind(-1)
    shown = torch.addcmul(mean, pixels, std).clamp_(0.0, 1.0)
    return geometry.crop(geometry.unpatch(shown))
