"""EDEN's denoiser with fused kernels.

Legend: K pairs, Q latents of a pair, L = 4 * Q tokens of a frame, C channels.
"""

from __future__ import annotations

from typing import NamedTuple

import torch

from stages.eden import denoiser
from stages.eden.architecture import Architecture
from stages.eden.denoiser import TIMES
from stages.eden.fused.attention import attend, attend_in_time
from stages.eden.fused.embedding import embed
from stages.eden.fused.mlp import gelu_
from stages.eden.fused.norms import Residual, Scaling, normalise
from stages.eden.geometry import Grid
from stages.eden.layers import Block, Weights


class _Step(NamedTuple):
    """What modulates all blocks of one Euler step; [K, C] float32 each."""

    attention: Scaling
    gate_attention: torch.Tensor
    mlp: Scaling
    gate_mlp: torch.Tensor


class Denoiser(denoiser.Denoiser):
    """The same weights, and those for keys and values of all blocks as one matrix."""

    def __init__(self, weights: Weights, architecture: Architecture) -> None:
        super().__init__(weights, architecture)
        self._proj_in_weight = self._proj_in.weight.t().contiguous()
        hidden = architecture.hidden
        parts = [block.temporal.qkv.weight[hidden:] for block in self._blocks]
        self._keys_values = torch.cat(parts) if parts else self._proj_in.weight[:0]

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
        frames = self._project(tokens)
        steps = self._steps(difference)
        latents = noise.contiguous()
        for i, step in enumerate(steps):
            velocity = self._velocity(latents, step, frames, grid)
            is_last = i == len(steps) - 1
            span = TIMES[i + 1] - TIMES[i]
            latents = torch.add(latents, velocity, alpha=span, out=out if is_last else None)

    def _project(self, tokens: torch.Tensor) -> torch.Tensor:
        """Return keys and values of the frames' tokens [K + 1, Q, 4, depth, 2, C]."""
        frames, count, channels = tokens.shape
        both = tokens.reshape(frames * count, channels) @ self._keys_values.t()
        return both.view(frames, count // 4, 4, len(self._blocks), 2, channels)

    def _steps(self, difference: torch.Tensor) -> list[_Step]:
        # In half precision they are computed in float32, and stay so.
        steps = self._modulations(difference).to(torch.float32).unbind(0)
        return [_step(*step.unbind(1)) for step in steps]

    def _velocity(
        self, latents: torch.Tensor, step: _Step, frames: torch.Tensor, grid: Grid
    ) -> torch.Tensor:
        """Return [K, Q, latent], where the latents [K, Q, latent] are to go."""
        x = embed(latents, self._proj_in_weight, self._proj_in, grid.latents, self._dtype)
        h = torch.empty_like(x)
        residual = None
        for i, block in enumerate(self._blocks):
            residual = _apply(block, x, h, residual, step, frames[:, :, :, i])
        normalise(x, self._norm_out, h, residual=residual)
        return self._proj_out(h)


def _step(*parts: torch.Tensor) -> _Step:
    modulation = denoiser.Modulation(*parts)
    return _Step(
        attention=Scaling(modulation.scale_attention, modulation.shift_attention),
        gate_attention=modulation.gate_attention,
        mlp=Scaling(modulation.scale_mlp, modulation.shift_mlp),
        gate_mlp=modulation.gate_mlp,
    )


def _apply(
    block: Block,
    x: torch.Tensor,
    h: torch.Tensor,
    residual: Residual | None,
    step: _Step,
    keys_values: torch.Tensor,
) -> Residual:
    """Change x [K, Q, C] as one block does, but for the last residual, which is returned.

    Args:
        block: its weights.
        x: still lacks `residual`, that of the block before.
        h: of x's shape, for the normalised x.
        residual: of the block before.
        step: the modulation.
        keys_values: [K + 1, Q, 4, 2, C] of the frames.
    """
    pairs, rows, channels = x.shape
    heads, lines = block.temporal.num_heads, h.view(-1, channels)
    normalise(x, block.norm_self, h, residual=residual, scaling=step.attention)
    qkv = torch.unflatten(block.qkv(h), -1, (3, heads, -1)).permute(2, 0, 3, 1, 4)
    attended = block.proj(attend(*qkv.unbind(0))).view(pairs, rows, channels)
    normalise(x, block.temporal.norm, h, residual=Residual(attended, step.gate_attention))
    mixed = torch.empty_like(lines)
    attend_in_time(block.temporal.qkv(lines), keys_values, heads, mixed)
    x.view(-1, channels).addmm_(mixed, block.temporal.proj.weight.t())
    normalise(x, block.norm_mlp, h, scaling=step.mlp)
    return Residual(block.fc2(gelu_(block.fc1(h))), step.gate_mlp)
