"""The tensors of a window that EDEN's stages pass on."""

from __future__ import annotations

from dataclasses import replace

from stages.base import Job, TensorSpec
from stages.eden.architecture import Architecture
from stages.eden.geometry import Geometry
from stages.window import VideoFacts

_NO_JOB = Job(input="", output="", work_dir="")


def window_specs(model: Architecture, dtype: str, facts: VideoFacts) -> dict[str, TensorSpec]:
    """Return all tensors of a window that an EDEN stage reads or writes.

    Args:
        model: of the weights.
        dtype: of the tokens.
        facts: of the video.
    """
    pairs = facts.pairs_per_item
    geometry = Geometry(facts.height, facts.width, model.patch)
    tokens = TensorSpec((pairs + 1, geometry.num_tokens, model.hidden), dtype)
    return {
        "frames": TensorSpec((pairs + 1, facts.frame_bytes), "uint8"),
        "tokens_dit": tokens,
        "tokens_dec": tokens,
        "stats": TensorSpec((pairs + 1, 2), "float32"),
        "difference": TensorSpec((pairs, 1), "float32"),
        "latents": TensorSpec((pairs, geometry.num_latents, model.latent), "float32"),
        "middle": TensorSpec((pairs, facts.color_bytes), "uint8"),
    }


def rgb_bytes(facts: VideoFacts) -> int:
    """Return the size of a window's frames as float32 RGB."""
    return (facts.pairs_per_item + 1) * 3 * facts.height * facts.width * 4


def shapes_of(facts: VideoFacts) -> VideoFacts:
    """Return the facts without what tells jobs of the same shapes apart."""
    return replace(facts, job=_NO_JOB, num_frames=0)
