"""Write a tiny random Qwen3-VL as a checkpoint folder, for tests and for trying things on a CPU.

    python -m tools.tiny_judge FOLDER [--moe]

About a megabyte. It answers "Score: D/10"; the digit follows from images and words, and means
nothing.
"""

from __future__ import annotations

from pathlib import Path

import click
import torch
from transformers.utils import logging as transformers_logging

from stages.judging.random_model import byte_tokenizer, make_model, make_processor


def make_tiny_judge(folder: Path, *, seed: int = 0) -> Path:
    """Write a dense one into `folder`, which is made; return `folder`."""
    return _write(folder, "tiny", seed)


def make_tiny_moe_judge(folder: Path, *, seed: int = 0) -> Path:
    """Write one with four experts into `folder`, which is made; return `folder`."""
    return _write(folder, "tiny-moe", seed)


def _write(folder: Path, preset: str, seed: int) -> Path:
    model, tokenizer = make_model(preset, seed, device="cpu", dtype=torch.float32), byte_tokenizer()
    model.generation_config.eos_token_id = tokenizer.convert_tokens_to_ids("<|im_end|>")
    transformers_logging.disable_progress_bar()
    model.save_pretrained(folder)
    make_processor(tokenizer).save_pretrained(folder)
    return folder


@click.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--moe", is_flag=True, help="One with experts.")
@click.option("--seed", default=0, show_default=True)
def main(folder: Path, moe: bool, seed: int) -> None:
    """Write a tiny random Qwen3-VL into FOLDER."""
    click.echo((make_tiny_moe_judge if moe else make_tiny_judge)(folder, seed=seed))


if __name__ == "__main__":
    main()
