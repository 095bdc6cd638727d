"""EDEN in one call, without stages: for a notebook, a test, a comparison.

Legend: K pairs, Q latents of a pair.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from stages.eden.architecture import Architecture
from stages.eden.checkpoint import read_architecture, read_tensors
from stages.eden.decoder import Decoder
from stages.eden.denoiser import Denoiser
from stages.eden.encoder import Encoded, Encoder
from stages.eden.geometry import Geometry, Grid, make_grid
from stages.eden.layers import Weights
from stages.eden.networks import Kernels, choose_networks


@dataclass(frozen=True, slots=True)
class Eden:
    """The three networks of one checkpoint, on one device."""

    architecture: Architecture
    encoder: Encoder
    denoiser: Denoiser
    decoder: Decoder
    device: torch.device
    dtype: torch.dtype

    def grid(self, height: int, width: int) -> Grid:
        """Return the grid of frames of this size."""
        geometry = Geometry(height, width, self.architecture.patch)
        return make_grid(geometry, self.architecture.hidden, self.device)

    def encode(self, frames: torch.Tensor, grid: Grid) -> Encoded:
        """Return what the encoder says of frames [K + 1, 3, height, width], float32 in [0, 1]."""
        encoded = self._empty_encoded(frames.shape[0], grid)
        self.encoder.encode(frames, grid, out=encoded)
        return encoded

    @torch.inference_mode()
    def interpolate(self, frames: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
        """Return the K frames between K + 1 frames.

        Args:
            frames: [K + 1, 3, height, width] float32 in [0, 1], on the device.
            noise: [K, Q, latent] float32, standard normal, on the device.

        Returns:
            [K, 3, height, width] float32 in [0, 1].
        """
        grid = self.grid(*frames.shape[-2:])
        encoded = self.encode(frames, grid)
        latents = torch.empty_like(noise)
        self.denoiser.denoise(noise, encoded.difference, encoded.tokens_dit, grid, out=latents)
        return self.decoder.decode(latents, encoded.tokens_dec, encoded.stats, grid)

    def _empty_encoded(self, num_frames: int, grid: Grid) -> Encoded:
        full = torch.promote_types(self.dtype, torch.float32)
        tokens = (num_frames, grid.geometry.num_tokens, self.architecture.hidden)
        return Encoded(
            tokens_dit=torch.empty(tokens, dtype=self.dtype, device=self.device),
            tokens_dec=torch.empty(tokens, dtype=self.dtype, device=self.device),
            stats=torch.empty((num_frames, 2), dtype=full, device=self.device),
            difference=torch.empty((num_frames - 1, 1), dtype=full, device=self.device),
        )


def load_eden(
    weights: str,
    *,
    device: str = "cpu",
    dtype: torch.dtype = torch.float32,
    kernels: Kernels = "torch",
) -> Eden:
    """Return the whole model of `weights`, a path or `random:SEED[:PRESET]`.

    Raises:
        UserError: the weights are missing, or those of another model; or `kernels` cannot run.
    """
    architecture = read_architecture(weights)
    prefixes = Encoder.prefixes + Denoiser.prefixes + Decoder.prefixes
    tensors = read_tensors(weights, prefixes)
    place = torch.device(device)
    layers = Weights(tensors, place, dtype)
    networks = choose_networks(kernels, architecture, place, dtype)
    return Eden(
        architecture=architecture,
        encoder=networks.encoder(layers, architecture),
        denoiser=networks.denoiser(layers, architecture),
        decoder=networks.decoder(layers, architecture),
        device=place,
        dtype=dtype,
    )


def interpolate(frames: torch.Tensor, noise: torch.Tensor, weights: str) -> torch.Tensor:
    """Return the frames between `frames` in one go, float32 on the CPU; see `Eden.interpolate`."""
    return load_eden(weights).interpolate(frames, noise)
