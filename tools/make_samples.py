"""Renders a small set of samples, in any format that is read: the tiny run's, and the tests'.

python tools/make_samples.py configs/edit_score
python tools/make_samples.py tests/data/benchmark --every-format
"""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass
from io import BytesIO
from itertools import pairwise
from pathlib import Path

import click
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image, ImageDraw

SIZES = ((300, 200), (200, 300), (256, 256))  # width, height
SHARP = 4  # drawn so many times as large

# category: its name in Chinese, and instructions in English and Chinese
TEXTS = {
    "physical": (
        "\u7269\u7406",
        ("Let the ball fall to the ground", "\u8ba9\u7403\u843d\u5230\u5730\u4e0a"),
        ("Tip the box over onto its side", "\u628a\u7bb1\u5b50\u63a8\u5012"),
        ("Make the ball float above the box", "\u8ba9\u7403\u6f02\u5728\u7bb1\u5b50\u4e0a"),
    ),
    "environmental": (
        "\u73af\u5883",
        ("Show the same place at night", "\u6362\u6210\u591c\u665a"),
        ("Let it snow on the ground", "\u8ba9\u5730\u4e0a\u4e0b\u96ea"),
        ("Make it a foggy morning", "\u53d8\u6210\u6709\u96fe\u7684\u65e9\u6668"),
    ),
    "cultural": (
        "\u793e\u4f1a",
        (
            "Wrap the box as a birthday present",
            "\u628a\u7bb1\u5b50\u5305\u6210\u751f\u65e5\u793c\u7269",
        ),
        ("Hang a lantern over the box", "\u5728\u7bb1\u5b50\u4e0a\u6302\u4e00\u4e2a\u706f\u7b3c"),
    ),
    "causal": (
        "\u56e0\u679c",
        ("Show the box after the ball has hit it", "\u7403\u649e\u5230\u7bb1\u5b50\u4e4b\u540e"),
        ("Show the ground after a long rain", "\u4e0b\u4e86\u5f88\u4e45\u7684\u96e8\u4e4b\u540e"),
    ),
    "referential": (
        "\u6307\u4ee3",
        (
            "Paint the thing on the left green",
            "\u628a\u5de6\u8fb9\u7684\u4e1c\u897f\u6d82\u6210\u7eff\u8272",
        ),
        (
            "Remove what lies nearest to the sun",
            "\u62ff\u8d70\u79bb\u592a\u9633\u6700\u8fd1\u7684\u4e1c\u897f",
        ),
    ),
}
GEDIT_TASKS = ("background_change", "color_alter", "motion_change", "subject-remove", "text_change")
IMGEDIT_TYPES = ("background", "adjust", "action", "remove", "replace")
DIFFICULTIES = ("easy", "medium", "hard")


@dataclass(frozen=True)
class Rendered:
    """One sample as it is rendered."""

    category: str
    number: int  # in its category
    at: int  # in the set
    english: str
    chinese: str
    png: bytes

    @property
    def id(self) -> str:
        """The id in formats that have one."""
        return f"{self.category}-{self.number:02}"


def picture(at: int) -> Image.Image:
    """Draw a ball and a box under a sun; the sun, the colours and the places differ."""
    width, height = (side * SHARP for side in SIZES[at % len(SIZES) if at % 4 else 0])
    rng = np.random.default_rng(at)
    warm, cool = rng.integers(120, 255, 3), rng.integers(40, 200, 3)
    drawn = Image.new("RGB", (width, height))
    draw = ImageDraw.Draw(drawn)
    horizon = int(height * (0.55 + 0.1 * rng.random()))
    bands = np.linspace(0, horizon, 25).astype(int)
    for step, (top, bottom) in enumerate(pairwise(bands)):
        draw.rectangle((0, top, width, bottom), (110 + 4 * step, 150 + 3 * step, 235))
    draw.rectangle((0, horizon, width, height), (96, 140 + int(rng.integers(30)), 80))
    unit, sun, ball = min(width, height) // 10, rng.random() * 0.6 + 0.2, rng.random() * 0.2 + 0.15
    draw.circle((width * sun, unit * 2), unit, (255, 230, 120))
    draw.circle((width * ball, horizon), unit * 1.5, tuple(warm.tolist()))
    left, top = width * (0.55 + 0.15 * rng.random()), horizon - unit
    draw.rectangle((left, top, left + unit * 3, top + unit * 3), tuple(cool.tolist()))
    return drawn.reduce(SHARP)


def render() -> list[Rendered]:
    """Return all samples, each the same whenever it is rendered."""
    samples: list[Rendered] = []
    for category, (_, *texts) in TEXTS.items():
        for number, (english, chinese) in enumerate(texts, 1):
            with BytesIO() as file:
                picture(len(samples)).save(file, "png", optimize=True)
                png = file.getvalue()
            samples.append(Rendered(category, number, len(samples), english, chinese, png))
    return samples


def write_folder(folder: Path, samples: list[Rendered]) -> None:
    """Write samples.jsonl, and images/ beside it."""
    (folder / "images").mkdir(parents=True, exist_ok=True)
    with open(folder / "samples.jsonl", "w") as file:
        for one in samples:
            image = f"images/{one.id}.png"
            (folder / image).write_bytes(one.png)
            fields = {"id": one.id, "group": one.category, "instruction": one.english}
            file.write(json.dumps({**fields, "image": image}) + "\n")


def _record(one: Rendered, subset: str) -> dict[str, object]:
    return {
        "subset": subset,
        "original_description": "\u7403\u548c\u7bb1\u5b50",
        "edit_instruction": one.chinese,
        "original_description_en": "A ball and a box under a sun",
        "edit_instruction_en": one.english,
        "src_img_b64": base64.b64encode(one.png).decode(),
        "rationale_short": "\u7403\u4f1a\u52a8",
        "rationale_short_en": "What is seen follows from it",
        "tags": ["rendered", one.category],
        "difficulty": DIFFICULTIES[one.at % 3],
        "original_image_path": f"/data/{one.id}.png",
        "seed": 1000 + one.at,
    }


def write_origin(path: Path, samples: list[Rendered]) -> None:
    """Write a list of records with Base64 images, subsets in Chinese."""
    records = [_record(one, TEXTS[one.category][0]) for one in samples]
    path.write_text(json.dumps(records, indent=1) + "\n")


def write_re_edit(path: Path, samples: list[Rendered]) -> None:
    """Write lists of such records by category, in English."""
    of = {name: [_record(one, name) for one in samples if one.category == name] for name in TEXTS}
    path.write_text(json.dumps(of, indent=1) + "\n")


def write_gedit(path: Path, samples: list[Rendered]) -> None:
    """Write a parquet file, a row for each sample and language."""
    rows = [
        {
            "key": f"{one.at:04x}{language}".encode().hex(),
            "task_type": GEDIT_TASKS[one.at % len(GEDIT_TASKS)],
            "instruction": text,
            "instruction_language": language,
            "input_image": {"bytes": one.png, "path": None},
            "input_image_raw": {"bytes": one.png, "path": None},
            "Intersection_exist": one.at % 2 == 0,
        }
        for one in samples
        for language, text in (("en", one.english), ("cn", one.chinese))
    ]
    image = pa.struct({"bytes": pa.binary(), "path": pa.string()})
    kinds = {"input_image": image, "input_image_raw": image, "Intersection_exist": pa.bool_()}
    schema = pa.schema([(name, kinds.get(name, pa.string())) for name in rows[0]])
    pq.write_table(pa.Table.from_pylist(rows, schema), path, row_group_size=4)


def write_imgedit(path: Path, samples: list[Rendered]) -> None:
    """Write an object of samples by key, and their images in singleturn/ beside it."""
    records = {}
    for one in samples:
        image = f"{one.category}/{one.at:09}.png"
        place = path.parent / "singleturn" / image
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(one.png)
        kind = IMGEDIT_TYPES[one.at % len(IMGEDIT_TYPES)]
        records[str(1000 + one.at)] = {"id": image, "prompt": one.english, "edit_type": kind}
    path.write_text(json.dumps(records, indent=1) + "\n")


@click.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--every-format", is_flag=True, help="Five small sets, one in each format.")
def main(folder: Path, every_format: bool) -> None:
    """Write rendered samples into FOLDER."""
    samples = render()
    if not every_format:
        write_folder(folder, samples)
        return
    few = [one for one in samples if one.number == 1]
    write_folder(folder / "folder", few)
    for name in ("origin", "re_edit", "gedit", "imgedit"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    write_origin(folder / "origin/samples.json", few)
    write_re_edit(folder / "re_edit/samples.json", few)
    write_gedit(folder / "gedit/samples.parquet", few)
    write_imgedit(folder / "imgedit/basic_edit.json", few)


if __name__ == "__main__":
    main()
