"""A stand-in for an editor: every pixel of sample i becomes 10 + i."""

from dataclasses import replace

import numpy as np

from stages.benchmark.facts import edited_size
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
