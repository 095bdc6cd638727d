"""Random weights, each tensor keyed by (seed, name), so that every stage can make its own.

Scaled so that activations keep their size through the model: the frames are noise, but neither
constant nor saturated. Good for measuring and testing, where weights do not matter.
"""

from __future__ import annotations

import hashlib
from math import prod

import torch

from stages.eden.architecture import Architecture

_NORM_SPREAD = 0.1
_BIAS_SPREAD = 0.02
_GAINS = {
    "adaLN_modulation.1.weight": 0.2,  # 1 + scale stays well away from 0
    "proj_token.weight": 0.2,  # undoes the division of the latents by vae_scaler
    "unpatchify.3.weight": 0.7,  # pixels stay within about two of their standard deviations
}


def key_seed(*key: object) -> int:
    """Return a seed that depends on every part of `key`, the same in every process and run."""
    text = "/".join(str(part) for part in key)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little") >> 1


def random_tensor(architecture: Architecture, seed: int, name: str) -> torch.Tensor:
    """Return the tensor `name` of the random model `seed`, float32 on the CPU."""
    shape = architecture.shapes()[name]
    generator = torch.Generator().manual_seed(key_seed("eden weights", seed, name))
    values = torch.randn(shape, generator=generator)
    if name.endswith(".bias"):
        return values.mul_(_BIAS_SPREAD)
    if len(shape) == 1:
        return values.mul_(_NORM_SPREAD).add_(1.0)
    return values.mul_(_GAINS.get(name, 1.0) * prod(shape[1:]) ** -0.5)
