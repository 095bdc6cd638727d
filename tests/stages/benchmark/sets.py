"""Sets of samples for tests: small images, records in the shape of the origin's, jobs."""

import base64
import json
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image

from stages.base import Item, Job

DATA = Path(__file__).parents[2] / "data" / "benchmark"
SETS = {
    "origin": DATA / "origin/samples.json",
    "re-edit": DATA / "re_edit/samples.json",
    "gedit": DATA / "gedit/samples.parquet",
    "imgedit": DATA / "imgedit/basic_edit.json",
    "folder": DATA / "folder",
}
IMAGES = {"imgedit": str(DATA / "imgedit/singleturn")}  # where they are not beside the set
AREA = 128 * 128  # of edits: 96x160 of sources of 32x48


def png(width=48, height=32, value=0, **how):
    """Return an image file whose pixels tell images apart."""
    pixels = np.full((height, width, 3), value, np.uint8)
    pixels[0, :, 0] = np.arange(width) % 256
    with BytesIO() as file:
        Image.fromarray(pixels).save(file, how.pop("format", "png"), **how)
        return file.getvalue()


def record(instruction="Let it rain", image=None, subset="physical", **more):
    """Return one of the origin's records; what is None is left out."""
    fields = {
        "subset": subset,
        "edit_instruction": "\u4e0b\u96e8",
        "edit_instruction_en": instruction,
        "src_img_b64": base64.b64encode(png() if image is None else image).decode(),
        **more,
    }
    return {name: value for name, value in fields.items() if value is not None}


def write_json(path, value):
    path.write_text(json.dumps(value))
    return path


def write_folder(folder, images, **more):
    """Write a folder set of {id: image file}, all of one group."""
    folder.mkdir()
    lines = []
    for name, image in images.items():
        (folder / f"{name}.png").write_bytes(image)
        fields = {"id": name, "group": "physical", "instruction": f"Change {name}"}
        lines.append(json.dumps({**fields, "image": f"{name}.png"} | more))
    (folder / "samples.jsonl").write_text("\n".join(lines) + "\n")
    return folder


def job_of(given, tmp_path, section="edit", **more):
    """Return the job of a section, whose run's folder is `run`."""
    work_dir = tmp_path / "run" / section
    work_dir.mkdir(parents=True, exist_ok=True)
    name = {"edit": "edits.jsonl", "score": "results.json"}[section]
    where = {"work_dir": str(work_dir), "run_dir": str(tmp_path / "run")}
    output = str(tmp_path / "out" / name)
    return Job(**{"input": str(given), "output": output, **where, **more})


def outputs_of(source, facts):
    """Return arrays for what a source writes, full of what nobody wrote."""
    return {
        name: np.full(spec.shape, 0xEE, spec.dtype) for name, spec in source.specs(facts).items()
    }


def item_of(index, meta=None, failed=""):
    return Item(index=index, attempt=0, meta=meta, failed=failed)
