"""What a stage tells of its copies: those to its device and back, and none where there are none."""

from contextlib import contextmanager

import pytest
import torch

from stages.base import Item
from stages.eden import Encode
from stages.window import WindowMeta

META = WindowMeta(num_pairs=2, pts=(0, 1, 2), cuts=(False, False))


def parts_of_a_run(device, facts, frames, slot):
    """Return the parts that one run tells of, and whether the output was whole at the end of each.

    The outputs are poisoned before.
    """
    stage = Encode(weights="random:3:tiny", dtype="float32")
    stage.load(device)
    stage.prepare(facts, 2)
    outputs, told = slot(stage.specs(facts)), []

    @contextmanager
    def part(what):
        yield
        told.append((what, bool(outputs["stats"].isfinite().all())))

    stage.run({"frames": frames}, outputs, Item(index=0, attempt=0, meta=META, part=part))
    stage.close()
    assert outputs["stats"].isfinite().all()
    return told


def test_where_memory_is_the_device_s_nothing_is_copied(facts_of, frames_of, slot):
    facts = facts_of()
    assert parts_of_a_run("cpu", facts, frames_of(facts), slot) == []


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_copies_to_a_gpu_and_back_are_told_apart_from_computing(facts_of, frames_of, slot):
    facts = facts_of()
    told = parts_of_a_run("cuda:0", facts, frames_of(facts), slot)
    assert told == [("copy", False), ("copy", True)]
