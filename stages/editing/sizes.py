"""How large the pictures and texts of an edit are: arithmetic that needs no model."""

from __future__ import annotations

from collections.abc import Mapping
from math import ceil
from typing import Any

from stages.benchmark.facts import EDIT_AREA, SampleFacts, edited_size
from stages.editing.checkpoint import Checkpoint

Size = tuple[int, int]  # height, width

PLUS_PROMPT_AREA = 384 * 384  # pixels that the text encoder of 2509 and 2511 is shown
# Of the frame around an instruction, behind what diffusers cuts off. A token of text is never less
# than a byte, so bytes bound tokens, whatever the tokenizer.
TEMPLATE_TOKENS = 400
PIXELS_PER_TOKEN_SIDE = 16  # 8 of the VAE, 2 x 2 latents a token


def prompt_size(checkpoint: Checkpoint, height: int, width: int) -> Size:
    """Return (height, width) at which the text encoder is shown a source."""
    return edited_size(height, width, PLUS_PROMPT_AREA if checkpoint.is_plus else EDIT_AREA)


def max_prompt_tokens(checkpoint: Checkpoint, facts: SampleFacts, text_bytes: int) -> int:
    """Return a bound of the tokens of a prompt with a source picture and so many bytes of text."""
    side = checkpoint.image_token_side
    pictures = (prompt_size(checkpoint, height, width) for height, width in facts.sizes)
    most = max((ceil(height / side) * ceil(width / side) for height, width in pictures), default=1)
    return TEMPLATE_TOKENS + most + text_bytes


def largest_edit(facts: SampleFacts, area: int) -> int:
    """Return the bytes of the largest edited picture, RGB."""
    sizes = (edited_size(height, width, area) for height, width in facts.sizes)
    return max((height * width * 3 for height, width in sizes), default=3)


def image_tokens(size: Size) -> int:
    """Return how many tokens a picture of `size` is to the transformer."""
    return (size[0] // PIXELS_PER_TOKEN_SIDE) * (size[1] // PIXELS_PER_TOKEN_SIDE)


def pass_flop(transformer: Mapping[str, Any], num_image: int, num_text: int) -> int:
    """Return the arithmetic of one pass: two operations a multiplication, as torch counts.

    Args:
        transformer: its configuration numbers.
        num_image: tokens of noise and of the source picture.
        num_text: tokens of the prompt.
    """
    width = transformer["attention_head_dim"] * transformer["num_attention_heads"]
    num_tokens = num_image + num_text
    modulation = 2 * 6 * width**2 * (2 if not transformer.get("zero_cond_t") else 3)
    products = 2 * (4 + 8) * width**2 * num_tokens  # q, k, v, out; and two of 4 x in the MLP
    attention = 4 * num_tokens**2 * width
    block = modulation + products + attention
    rows = 2 if transformer.get("zero_cond_t") else 1  # of the time embedding: t, and 0
    time = 2 * rows * (256 * width + width**2)
    out = 2 * 2 * width**2 + 2 * num_image * width * _patch(transformer)
    enter = (
        2
        * width
        * (num_image * transformer["in_channels"] + num_text * transformer["joint_attention_dim"])
    )
    return int(transformer["num_layers"] * block + time + enter + out)


def _patch(transformer: Mapping[str, Any]) -> int:
    return int(transformer["patch_size"] ** 2 * transformer["out_channels"])
