"""Stand-ins for an editor: every pixel of sample i becomes 10 + i, or one that follows its seed."""

import json
import os
import signal
from dataclasses import replace
from pathlib import Path

import numpy as np

from stages.base import Stage, TensorSpec
from stages.benchmark.facts import SampleFacts, SampleMeta, edited_size
from stages.benchmark.read import ReadSamples
from stages.benchmark.save import SaveEdits
from tests.stages.benchmark.sets import AREA, IMAGES, item_of, outputs_of


def edited_meta(meta):
    height, width = edited_size(meta.height, meta.width, AREA)
    return replace(meta, edited_height=height, edited_width=width, steps=4, passes=8, tflop=0.5)


def row_of(meta, value):
    """Return the editor's output: a row with room for larger edits."""
    row = np.zeros(AREA * 6, np.uint8)
    row[: meta.edited_height * meta.edited_width * 3] = value
    return row


def edit_all(job, *, failing=(), only=None, data_format="auto", **how):
    """Edit all samples of a job but those `failing`; return source, sink and facts."""
    images = IMAGES.get(data_format, "")
    source, sink = ReadSamples(area=AREA, data_format=data_format, images=images), SaveEdits(**how)
    facts = source.open(job)
    sink.open(facts)
    outputs = outputs_of(source, facts)
    for at, key in enumerate(source.keys()):
        if only is not None and key not in only:
            continue
        if key in failing:
            sink.write(item_of(at, failed=f"{key} did not fit"), {}, None)
            continue
        meta = edited_meta(source.read(key, outputs))
        sink.write(item_of(at), {"edited": row_of(meta, 10 + at)}, meta)
    return source, sink, facts


class Tint(Stage):
    """Paints an edit in one colour, by the sample's seed.

    Args:
        refuse: id of a sample that it fails.
        kill: a run's folder, in which it kills one worker of each kind, once.
    """

    library = "numpy"
    facts_type, meta_type = SampleFacts, SampleMeta
    reads, writes = ("source",), ("edited",)

    def __init__(self, *, refuse: str = "", kill: str = ""):
        self._refuse, self._kill = refuse, kill

    def specs(self, facts):
        sizes = [edited_size(*size, AREA) for size in facts.sizes]
        return {"edited": TensorSpec((max(high * wide * 3 for high, wide in sizes),), "uint8")}

    def load(self, device):
        pass

    def prepare(self, facts, size):
        return size

    def run(self, inputs, outputs, item):
        if item.meta.id == self._refuse:
            raise ValueError(f"{self._refuse} is refused")
        if self._kill and item.meta.id == "causal-01":
            kill_once(Path(self._kill))
        meta = edited_meta(item.meta)
        outputs["edited"][:] = 0
        outputs["edited"][: meta.edited_height * meta.edited_width * 3] = meta.seed % 251
        return meta


def kill_once(run_dir):
    """Kill the reader, a saver, and this process, by SIGKILL, unless that was done."""
    mark = run_dir / "killed"
    if mark.exists():
        return
    mark.touch()
    pids = json.loads((run_dir / "workers.json").read_text())
    for pid in (pids["read/0"], pids["save/1"], os.getpid()):
        os.kill(pid, signal.SIGKILL)
