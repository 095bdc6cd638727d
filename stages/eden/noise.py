"""The noise a frame pair starts from, keyed by the pair's place in the video and nothing else."""

from __future__ import annotations

import torch

from stages.eden.random_weights import key_seed


def pair_noise(seed: int, pair: int, shape: tuple[int, int]) -> torch.Tensor:
    """Return standard normal noise of `shape`, float32, on the CPU.

    Always made on the CPU, one generator a pair: so it depends neither on the device, nor on the
    window that the pair is in, nor on the pairs before it.
    """
    generator = torch.Generator().manual_seed(key_seed("eden noise", seed, pair))
    return torch.randn(shape, generator=generator)


def window_noise(seed: int, first_pair: int, shape: tuple[int, int, int]) -> torch.Tensor:
    """Return the noise of `shape[0]` neighbouring pairs, of which `first_pair` is the first."""
    count, *one = shape
    return torch.stack([pair_noise(seed, first_pair + j, (one[0], one[1])) for j in range(count)])
