"""A tokenizer of single bytes, and the processor around it: for models of random weights.

The published ones need files with 150,000 words; for random weights any words do. The special
tokens have the names that Qwen's templates use.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from stages.vision import make_torchvision_importable

if TYPE_CHECKING:
    from transformers import Qwen2Tokenizer, Qwen2VLProcessor

SPECIAL_TOKENS = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|vision_pad|>",
    "<|image_pad|>",
    "<|video_pad|>",
)
NUM_TOKENS = 256 + len(SPECIAL_TOKENS)
# As the configuration of a model of Qwen's names them.
SPECIAL_IDS = {
    "bos_token_id": 256,
    "eos_token_id": 258,
    "vision_start_token_id": 259,
    "vision_end_token_id": 260,
    "image_token_id": 262,
    "video_token_id": 263,
}


def byte_tokenizer() -> Qwen2Tokenizer:
    """Return a `Qwen2Tokenizer` with a token for each byte and each special token."""
    make_torchvision_importable()
    from transformers import Qwen2Tokenizer
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    words = [*bytes_to_unicode().values(), *SPECIAL_TOKENS]
    return Qwen2Tokenizer(
        vocab={word: number for number, word in enumerate(words)},
        merges=[],
        additional_special_tokens=list(SPECIAL_TOKENS[1:]),
    )


def byte_processor() -> Qwen2VLProcessor:
    """Return the processor of Qwen2.5-VL, with its published sizes, on the tokenizer of bytes."""
    tokenizer = byte_tokenizer()  # first: it makes torchvision importable
    from transformers import Qwen2VLImageProcessor, Qwen2VLProcessor, Qwen2VLVideoProcessor

    sizes = {"patch_size": 14, "merge_size": 2, "temporal_patch_size": 2}
    return Qwen2VLProcessor(
        image_processor=Qwen2VLImageProcessor(min_pixels=3136, max_pixels=12845056, **sizes),
        tokenizer=tokenizer,
        video_processor=Qwen2VLVideoProcessor(**sizes),
    )
