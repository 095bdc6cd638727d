"""Weights of a judge from a folder of safetensors, straight onto its device, or made there."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from transformers import (
    PreTrainedModel,
    Qwen3VLForConditionalGeneration,
    Qwen3VLMoeForConditionalGeneration,
    Qwen3VLProcessor,
)
from transformers.utils import logging as transformers_logging

from stages.base import UserError
from stages.judging.checkpoint import read_checkpoint
from stages.judging.presets import parse_random
from stages.judging.random_model import (
    byte_tokenizer,
    chunk_tokenizer,
    make_model,
    make_processor,
)

logger = logging.getLogger(__name__)

# What transformers and its tokenizers raise for files that are damaged or of something else.
_BROKEN = (
    ArithmeticError,
    AttributeError,
    LookupError,
    OSError,
    RuntimeError,
    SafetensorError,
    TypeError,
    ValueError,
)


@dataclass(frozen=True, slots=True)
class Loaded:
    """A model in evaluation mode, and what turns words and images into its inputs."""

    model: PreTrainedModel
    processor: Qwen3VLProcessor


def make_random(model: str, device: str, dtype: torch.dtype) -> Loaded:
    """Make the weights of `random:SEED[:PRESET]` on `device`."""
    seed, preset = parse_random(model)
    tokenizer = byte_tokenizer() if preset.startswith("tiny") else chunk_tokenizer()
    made = make_model(preset, seed, device=device, dtype=dtype)
    made.generation_config.eos_token_id = tokenizer.convert_tokens_to_ids("<|im_end|>")
    return Loaded(made, make_processor(tokenizer))


def load_checkpoint(model: str, device: str, dtype: torch.dtype) -> Loaded:
    """Read the folder `model` onto `device`.

    Raises:
        UserError: it lacks a tensor, or has one of another shape or of no finite numbers.
        torch.OutOfMemoryError: the device has no room for it.
    """
    is_moe = read_checkpoint(model).is_moe
    kind = Qwen3VLMoeForConditionalGeneration if is_moe else Qwen3VLForConditionalGeneration
    transformers_logging.disable_progress_bar()  # stderr has a picture of its own
    transformers_logging.set_verbosity_error()  # what it warns of is told below, in one line
    try:
        processor = Qwen3VLProcessor.from_pretrained(Path(model), local_files_only=True)
        loaded, found = kind.from_pretrained(
            Path(model),
            dtype=dtype,
            device_map={"": device},  # no copy of it in host memory
            use_safetensors=True,
            local_files_only=True,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # to be told of them
        )
    except torch.OutOfMemoryError:
        raise
    except _BROKEN as error:
        reason = str(error).strip().partition("\n")[0]
        raise UserError(f"weights {model}: {type(error).__name__}: {reason}") from error
    _check(model, loaded, found)
    return Loaded(loaded.eval(), processor)


def _check(model: str, loaded: torch.nn.Module, found: Mapping[str, Collection[object]]) -> None:
    for what in ("missing_keys", "mismatched_keys"):
        if names := sorted(str(key) for key in found.get(what, ())):
            raise UserError(f"weights {model}: {what.replace('_', ' ')}: {', '.join(names[:3])}")
    if names := sorted(map(str, found.get("unexpected_keys", ()))):
        logger.warning("unused tensors model=%s: %s", model, ", ".join(names[:3]))
    odd = [name for name, values in loaded.named_parameters() if not values.isfinite().all()]
    if odd:
        raise UserError(f"weights {model}: tensor {odd[0]} has numbers that are not finite")
