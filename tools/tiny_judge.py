"""Writes a tiny random Qwen3-VL as a checkpoint folder, about a megabyte, for runs on a CPU.

It answers "Score: D/10"; the digit follows from images and words, and means nothing.
"""

from __future__ import annotations

from pathlib import Path

from stages.vision import make_torchvision_importable


def make_tiny_judge(folder: Path, *, seed: int = 0) -> Path:
    """Write a dense one into `folder`, which is made; return `folder`."""
    return _write(folder, "tiny", seed)


def make_tiny_moe_judge(folder: Path, *, seed: int = 0) -> Path:
    """Write one with four experts into `folder`, which is made; return `folder`."""
    return _write(folder, "tiny-moe", seed)


def _write(folder: Path, preset: str, seed: int) -> Path:
    make_torchvision_importable()
    import torch
    from transformers.utils import logging as transformers_logging

    from stages.judging.random_model import byte_tokenizer, make_model, make_processor

    transformers_logging.disable_progress_bar()
    model, tokenizer = make_model(preset, seed, device="cpu", dtype=torch.float32), byte_tokenizer()
    model.generation_config.eos_token_id = tokenizer.convert_tokens_to_ids("<|im_end|>")
    model.save_pretrained(folder)
    make_processor(tokenizer).save_pretrained(folder)
    return folder
