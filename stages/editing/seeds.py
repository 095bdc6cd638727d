"""Seeds and noise, keyed by what they are for: never by place, order, device or attempt."""

from __future__ import annotations

from hashlib import blake2b

import torch


def key_seed(*key: object) -> int:
    """Return 63 bits that depend on every part of `key`, the same in every process and run."""
    text = "/".join(str(part) for part in key)
    return int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "big") >> 1


def generator_of(seed: int) -> torch.Generator:
    """Return a generator on the CPU, whatever device the edit is made on."""
    return torch.Generator().manual_seed(seed)
