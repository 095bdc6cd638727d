"""EDEN's denoiser: noise becomes the latents of the frame between, in two Euler steps.

Legend: K pairs, Q latents of a pair, L = 4 * Q tokens of a frame, C channels.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F

from stages.eden.architecture import NUM_MODULATIONS, TIMESTEP_FEATURES, Architecture
from stages.eden.geometry import Grid
from stages.eden.layers import Block, FrameKeys, Weights, attend, make_blocks

TIMES = (0.0, 0.75, 1.0)


class Modulation(NamedTuple):
    """How difference and time change all blocks of one step; each [K, 1, C]."""

    shift_attention: torch.Tensor
    scale_attention: torch.Tensor  # 1 is added already
    gate_attention: torch.Tensor
    shift_mlp: torch.Tensor
    scale_mlp: torch.Tensor
    gate_mlp: torch.Tensor


class Denoiser:
    """The weights and the arithmetic of the diffusion transformer (DiT)."""

    prefixes = (
        "proj_in",
        "dit_blocks",
        "norm_out",
        "proj_out",
        "adaLN_modulation",
        "difference_embedder",
        "denoise_timestep_embedder",
    )

    def __init__(self, weights: Weights, architecture: Architecture) -> None:
        self._dtype = weights.dtype
        self._proj_in = weights.full().linear("proj_in")
        self._blocks = make_blocks(
            weights, "dit_blocks", architecture.dit_depth, architecture.num_heads
        )
        self._norm_out = weights.norm("norm_out")
        # The other half of its outputs is a variance, which Euler steps do not use.
        self._proj_out = weights.linear("proj_out").rows(0, architecture.latent)
        # A few rows a window, which scale every block of both steps: rounding them shows most, and
        # in float32 it depends on the number of threads.
        wider = weights.wider()
        self._modulation = wider.linear("adaLN_modulation.1")
        self._difference = wider.linear("difference_embedder")
        self._times = _embed_times(wider.under("denoise_timestep_embedder"))

    def denoise(
        self,
        noise: torch.Tensor,
        difference: torch.Tensor,
        tokens: torch.Tensor,
        grid: Grid,
        *,
        out: torch.Tensor,
    ) -> None:
        """Write the latents of all pairs of a window to `out` [K, Q, latent], float32.

        Args:
            noise: [K, Q, latent] float32, standard normal.
            difference: [K, 1] float32.
            tokens: [K + 1, L, C], the encoder's `tokens_dit`.
            grid: of the window's frames.
            out: may not overlap `noise`.
        """
        frames = self.project(tokens)
        modulations = self.modulations(difference)
        latents = noise
        for step, modulation in enumerate(modulations):
            velocity = self.velocity(latents, modulation, frames, grid)
            span = TIMES[step + 1] - TIMES[step]
            is_last = step == len(modulations) - 1
            latents = torch.add(latents, velocity, alpha=span, out=out if is_last else None)

    def project(self, tokens: torch.Tensor) -> list[FrameKeys]:
        """Return each block's keys and values of the frame tokens [K + 1, L, C]."""
        under_latents = torch.unflatten(tokens, 1, (-1, 4))
        return [block.temporal.project(under_latents) for block in self._blocks]

    def modulations(self, difference: torch.Tensor) -> list[Modulation]:
        """Return the modulation of each step for `difference` [K, 1]."""
        parts = self._modulations(difference)[:, :, :, None].to(self._dtype)
        return [Modulation(*step.unbind(1)) for step in parts]

    def velocity(
        self, latents: torch.Tensor, modulation: Modulation, frames: list[FrameKeys], grid: Grid
    ) -> torch.Tensor:
        """Return [K, Q, latent] float32, where the latents [K, Q, latent] are to go."""
        x = (self._proj_in(latents) + grid.latents).to(self._dtype)
        for block, keys in zip(self._blocks, frames, strict=True):
            _apply(block, x, modulation, keys)
        return self._proj_out(self._norm_out(x)).to(latents.dtype)

    def _modulations(self, difference: torch.Tensor) -> torch.Tensor:
        """Return the parts of a `Modulation` of every step, [steps, K, parts, C], widely."""
        condition = self._times[:, None] + self._difference(difference.to(self._times.dtype))
        parts = torch.unflatten(self._modulation(F.silu(condition)), -1, (NUM_MODULATIONS, -1))
        parts[:, :, 1::3] += 1.0
        return parts


def _apply(block: Block, x: torch.Tensor, modulation: Modulation, frames: FrameKeys) -> None:
    """Change x [K, Q, C] as one block does."""
    m = modulation
    # Product and sum apart, as published: a fused one rounds otherwise, and gates make it large.
    h = block.norm_self(x).mul_(m.scale_attention).add_(m.shift_attention)
    attended = block.proj(attend(block.qkv(h), block.temporal.num_heads))
    x.addcmul_(m.gate_attention, attended)
    x += block.temporal(x, frames)
    h = block.norm_mlp(x).mul_(m.scale_mlp).add_(m.shift_mlp)
    x.addcmul_(m.gate_mlp, block.mlp(h))


def _embed_times(weights: Weights) -> torch.Tensor:
    """Return [steps, C]: the condition that each step's time gives, the same for all pairs."""
    half = TIMESTEP_FEATURES // 2
    exponents = torch.arange(half, dtype=torch.float64) / half
    times = torch.tensor(TIMES[:-1], dtype=torch.float64)  # as they are, not times 1000
    angles = times[:, None] * torch.exp(-math.log(10000.0) * exponents)
    features = torch.cat([angles.cos(), angles.sin()], 1).to(weights.device, weights.dtype)
    first, second = weights.linear("mlp.0"), weights.linear("mlp.2")
    return second(F.silu(first(features)))
