"""An editor that computes nothing and takes its time, for what the runtime itself costs."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from dataclasses import replace

from stages.base import Item, Stage, TensorSpec
from stages.benchmark.facts import SampleFacts, SampleMeta
from stages.benchmark.pictures import Flat
from tools.bench_edit_ends import stamp


class FakeEdit(Stage[Flat, SampleFacts, SampleMeta]):
    """Writes the source as its edit, then waits until `took_s` have passed, as for a GPU.

    Args:
        took_s: of one sample.
    """

    library = "numpy"
    facts_type = SampleFacts
    meta_type = SampleMeta
    reads = ("source",)
    writes = ("edited",)

    def __init__(self, *, took_s: float) -> None:
        self._took_s = took_s

    def specs(self, facts: SampleFacts) -> dict[str, TensorSpec]:
        """Return what one sample writes."""
        return {"edited": TensorSpec((facts.max_source_bytes,), "uint8")}

    def load(self, device: str) -> None:
        """Load nothing."""

    def prepare(self, facts: SampleFacts, size: int) -> int:
        """Remember where to stamp."""
        self._work_dir = facts.job.work_dir
        return size

    def run(
        self, inputs: Mapping[str, Flat], outputs: Mapping[str, Flat], item: Item[SampleMeta]
    ) -> SampleMeta:
        """Stamp the beginning, by whom, and take the time."""
        began = time.monotonic()
        stamp(self._work_dir, f"by {os.getpid()}", item.index)
        outputs["edited"][:] = inputs["source"]
        time.sleep(max(0.0, began + self._took_s - time.monotonic()))
        meta = item.meta
        return replace(meta, edited_height=meta.height, edited_width=meta.width, steps=1)
