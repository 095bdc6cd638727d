"""Rendered sample sets of any number, and how they are read back without the pipeline."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tools.make_samples import TEXTS, picture

Pixels = NDArray[np.uint8]

NUM_PICTURES = 32  # different ones


@dataclass(frozen=True, slots=True)
class Sample:
    """One line of a set."""

    id: str
    group: str
    instruction: str
    image: Path

    def pixels(self) -> Pixels:
        """Return its picture, [height, width, 3]."""
        with Image.open(self.image) as image:
            return np.array(image.convert("RGB"))


def write_set(folder: Path, count: int, side: int, *, counts: Sequence[int] = ()) -> Path:
    """Write samples with pictures of `side` x `side`; return the path of the list.

    Args:
        folder: to be made.
        count: of the samples.
        side: in pixels.
        counts: of each category, in turn; (): as they come.
    """
    (folder / "images").mkdir(parents=True)
    lines = []
    for at, (group, instruction) in enumerate(_texts(count, counts)):
        name = f"images/{at:04}.png"
        drawn = picture(at % NUM_PICTURES).resize((side, side), Image.Resampling.LANCZOS)
        drawn.save(folder / name, compress_level=1)
        fields = {"id": f"s{at:04}", "group": group, "instruction": instruction, "image": name}
        lines.append(json.dumps(fields))
    path = folder / "samples.jsonl"
    path.write_text("\n".join(lines) + "\n")
    return path


def _texts(count: int, counts: Sequence[int]) -> list[tuple[str, str]]:
    texts = [(group, english) for group, (_, *both) in TEXTS.items() for english, _ in both]
    if not counts:
        return list(islice(cycle(texts), count))
    of_groups = ([text for text in texts if text[0] == group] for group in TEXTS)
    return [
        text
        for own, number in zip(of_groups, counts, strict=True)
        for text in islice(cycle(own), number)
    ]


def read_set(path: Path) -> list[Sample]:
    """Return the samples that `write_set` wrote."""
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    return [
        Sample(row["id"], row["group"], row["instruction"], path.parent / row["image"])
        for row in rows
    ]
