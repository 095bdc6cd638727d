"""Write tiny random checkpoints for `configs/edit_score_tiny.yaml`: editors and a judge.

    python tools/make_tiny_checkpoints.py [FOLDER]

Under a megabyte each, made in seconds, without a network: FOLDER/editor is a QwenImageEditPipeline,
FOLDER/editor_plus a QwenImageEditPlusPipeline (2509), FOLDER/judge a Qwen3-VL. They have
the classes, files and arithmetic of the published ones, and know nothing: an edit takes some
seconds of a CPU and is a pattern, and a score is a number.
"""

from __future__ import annotations

import sys
from pathlib import Path

import click
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from stages.editing.checkpoint import open_checkpoint
from stages.editing.models import load_whole
from stages.editing.published import PLAIN, PLUS

EDITORS = {"editor": "tiny", "editor_plus": "tinyplus"}


def make_tiny_editor(folder: Path, *, preset: str = "tiny", seed: int = 0) -> Path:
    """Write a pipeline of random weights into `folder`, as `save_pretrained` does; return it."""
    checkpoint = open_checkpoint(f"random:{seed}:{preset}", (PLAIN, PLUS))
    pipeline = load_whole(checkpoint, torch.device("cpu"), torch.float32)
    pipeline.save_pretrained(folder)
    return folder


@click.command()
@click.argument("folder", type=click.Path(path_type=Path), default="checkpoints/tiny")
@click.option("--seed", default=0, show_default=True, help="Other weights.")
def main(folder: Path, seed: int) -> None:
    """Write tiny random checkpoints of editors and a judge into FOLDER."""
    for name, preset in EDITORS.items():
        click.echo(make_tiny_editor(folder / name, preset=preset, seed=seed))
    from tools.tiny_judge import make_tiny_judge

    click.echo(make_tiny_judge(folder / "judge", seed=seed))


if __name__ == "__main__":
    main()
