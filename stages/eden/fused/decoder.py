"""EDEN's decoder with fused kernels.

Legend: K pairs, Q latents of a pair, L = 4 * Q tokens of a frame, C channels.
"""

from __future__ import annotations

import torch

from stages.eden import decoder
from stages.eden.architecture import Architecture
from stages.eden.fused.attention import attend, attend_in_time
from stages.eden.fused.embedding import embed, scale_and_upsample
from stages.eden.fused.mlp import gelu_
from stages.eden.fused.norms import normalise
from stages.eden.fused.pixels import read_patches
from stages.eden.geometry import Grid
from stages.eden.layers import Block, Weights


class Decoder(decoder.Decoder):
    """The same weights; residuals are added by the matrix products that make them.

    A matrix product can add to what is there, or add a bias, but not both. So the biases of the
    MLPs' last layers are left out of `recon`; norms add what is missing so far as they read it.
    """

    def __init__(self, weights: Weights, architecture: Architecture) -> None:
        super().__init__(weights, architecture)
        self._proj_token_weight = self._proj_token.weight.t().contiguous()
        missing = torch.zeros(architecture.hidden, dtype=torch.float32, device=weights.device)
        self._missing = [missing]
        for block in self._blocks:
            assert block.fc2.bias is not None
            missing = missing + block.fc2.bias
            self._missing.append(missing)

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
        h, tokens = torch.empty_like(recon), tokens.to(self._dtype)
        for block, missing in zip(self._blocks, self._missing[:-1], strict=True):
            _apply(block, recon, query, h, tokens, missing)
        normalise(recon, self._norm, h, offset=self._missing[-1])
        pixels = self._to_pixels(gelu_(self._widen(h)))
        return read_patches(pixels, stats, grid.geometry)

    def _embed(self, latents: torch.Tensor, grid: Grid) -> tuple[torch.Tensor, torch.Tensor]:
        """Return recon [K, L, C] and query [K, Q, C]."""
        weight, layer, dtype = self._proj_token_weight, self._proj_token, self._dtype
        scaled, large = scale_and_upsample(latents.contiguous(), grid.geometry, self._constants)
        recon = embed(large, weight, layer, grid.tokens, dtype)
        return recon, embed(scaled, weight, layer, grid.latents, dtype)


def _apply(
    block: Block,
    recon: torch.Tensor,
    query: torch.Tensor,
    h: torch.Tensor,
    tokens: torch.Tensor,
    missing: torch.Tensor,
) -> None:
    """Change recon [K, L, C] as one block does, but for the bias of the MLP's last layer.

    Args:
        block: its weights.
        recon: lacks the biases `missing` [C].
        query: [K, Q, C].
        h: of recon's shape, for the normalised recon.
        tokens: [K + 1, L, C] of the frames.
        missing: what is to be added to recon where it is read.
    """
    heads, channels = block.temporal.num_heads, recon.shape[2]
    x, lines = recon.view(-1, channels), h.view(-1, channels)
    x.addmm_(_attend_to_all(block, recon, query, missing), block.proj.weight.t())
    normalise(recon, block.temporal.norm, h, offset=missing)
    keys_values = block.temporal.qkv.rows(channels)(tokens)
    keys_values = keys_values.view(*tokens.shape[:2], 1, 2, channels)
    mixed = torch.empty_like(lines)
    attend_in_time(block.temporal.qkv(lines), keys_values, heads, mixed)
    x.addmm_(mixed, block.temporal.proj.weight.t())
    normalise(recon, block.norm_mlp, h, offset=missing)
    x.addmm_(gelu_(block.fc1(lines)), block.fc2.weight.t())


def _attend_to_all(
    block: Block, recon: torch.Tensor, query: torch.Tensor, missing: torch.Tensor
) -> torch.Tensor:
    """Return [K * L, C]: recon's tokens ask, all are looked at."""
    pairs, rows, channels = recon.shape
    everything = recon.new_empty(pairs, rows + query.shape[1], channels)
    normalise(recon, block.norm_self, everything[:, :rows], offset=missing)
    normalise(query, block.norm_self, everything[:, rows:])
    # One product for all, though query's own queries go unused: faster than two products.
    qkv = torch.unflatten(block.qkv(everything), -1, (3, block.temporal.num_heads, -1))
    asked, key, value = qkv.permute(2, 0, 3, 1, 4).unbind(0)
    return attend(asked[:, :, :rows], key, value)
