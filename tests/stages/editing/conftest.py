"""What the tests of editors share: tiny checkpoints, one sample, and diffusers' own answer."""

from dataclasses import dataclass

import numpy as np
import pytest
import torch

from stages.base import Item, Job
from stages.benchmark.facts import SampleFacts, SampleMeta
from stages.editing import Edit, EditWhole, EncodePrompts
from stages.editing.checkpoint import open_checkpoint
from stages.editing.models import load_whole
from stages.editing.published import PLAIN, PLUS
from stages.editing.stage import DTYPES

HEIGHT, WIDTH, STEPS = 90, 120, 2
SMALL = 256**2  # pixels of an edit: a megapixel takes a slow core seconds


@pytest.fixture(autouse=True, scope="session")
def one_thread():
    """Tiny models on two threads of a busy machine mostly wait."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory):
    """Return a function that gives the folder of a tiny checkpoint, written once."""
    made = {}

    def make(preset="tiny"):
        if preset not in made:
            found = open_checkpoint(f"random:0:{preset}", (PLAIN, PLUS))
            folder = tmp_path_factory.mktemp("checkpoints") / preset
            load_whole(found, torch.device("cpu"), torch.float32).save_pretrained(folder)
            made[preset] = folder
        return str(made[preset])

    return make


def picture(height=HEIGHT, width=WIDTH, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def facts_of(*sizes, instruction_bytes=40):
    sizes = sizes or ((HEIGHT, WIDTH),)
    return SampleFacts(
        job=Job(input="", output="", work_dir=""),
        num_samples=len(sizes),
        max_source_bytes=max(height * width * 3 for height, width in sizes) + 7,
        max_instruction_bytes=instruction_bytes,
        sizes=sizes,
    )


def meta_of(instruction="make it blue", *, height=HEIGHT, width=WIDTH, seed=5):
    return SampleMeta(
        id="a",
        group="g",
        language="en",
        instruction=instruction,
        height=height,
        width=width,
        seed=seed,
    )


@dataclass
class Edited:
    tensors: dict
    meta: SampleMeta
    progress: list

    @property
    def pixels(self):
        return self.tensors["edited"][: self.meta.edited_height * self.meta.edited_width * 3]


def run_stages(stages, facts, meta, source=None):
    """Run loaded stages after each other, as a worker does, in memory that holds what was there."""
    pixels = picture(meta.height, meta.width) if source is None else source
    tensors = {"source": torch.full((facts.max_source_bytes,), 9, dtype=torch.uint8)}
    tensors["source"][: pixels.size] = torch.from_numpy(pixels).flatten()
    progress = []
    for stage in stages:
        for name, spec in stage.specs(facts).items():
            junk = 7 if spec.dtype == "uint8" else float("nan")
            dtype = torch.uint8 if spec.dtype == "uint8" else DTYPES[spec.dtype]
            tensors[name] = torch.full(spec.shape, junk, dtype=dtype)
        item = Item(index=0, attempt=0, meta=meta, progress=progress.append)
        inputs = {name: tensors[name] for name in stage.reads}
        meta = stage.run(inputs, {name: tensors[name] for name in stage.writes}, item)
    return Edited(tensors, meta, progress)


def split_stages(weights, **keywords):
    scale = keywords.get("true_cfg_scale", 4.0)
    stages = [
        EncodePrompts(weights=weights, dtype="float32", true_cfg_scale=scale),
        Edit(weights=weights, dtype="float32", **{"steps": STEPS, "area": SMALL} | keywords),
    ]
    for stage in stages:
        stage.load("cpu")
    return stages


def whole_stage(weights, pipeline=PLAIN, call=None, *, device="cpu", **keywords):
    call = {"num_inference_steps": STEPS, "negative_prompt": " "} if call is None else call
    options = {"dtype": "float32", "area": SMALL} | keywords
    stage = EditWhole(weights=weights, pipeline=pipeline, call=call, **options)
    stage.load(device)
    return stage
