"""The stages of tools/bench_runtime_cost.py: they do next to nothing, with images of full size."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stages.base import Durable, Item, Job, Sink, Source, Stage, TensorSpec
from stages.benchmark.facts import SampleFacts, SampleMeta

Bytes = NDArray[np.uint8]
HEIGHT, WIDTH = 1104, 1472  # of the origin's samples
IMAGE_BYTES = HEIGHT * WIDTH * 3
GROUP = 8  # samples that are judged together


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What is known of a run."""

    job: Job
    num_samples: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Meta:
    """What travels with an item."""

    label: str


class _Part:
    """Says at the end what its own work took of its thread, which is not the runtime's cost."""

    library = "numpy"
    facts_type = Facts
    meta_type = Meta
    own_s = 0.0

    def __init__(self, *, log: str = "") -> None:
        self._log = log

    def close(self) -> None:
        """Write a line of seconds; the runtime closes each stage once."""
        if self._log:
            with open(self._log, "ab", buffering=0) as file:
                file.write(f"{self.own_s}\n".encode())


class Samples(_Part, Source[Bytes, Facts, Meta]):
    """Image i is of one colour; the input file says how many there are."""

    writes = ("source",)
    unit = "samples"

    def open(self, job: Job) -> Facts:
        """Return how many there are."""
        self._num = int(Path(job.input).read_text())
        return Facts(job=job, num_samples=self._num)

    def specs(self, facts: Facts) -> dict[str, TensorSpec]:
        """Return one image."""
        return {"source": TensorSpec((IMAGE_BYTES,), "uint8")}

    def keys(self) -> Sequence[int]:
        """Return the positions."""
        return range(self._num)

    def num_units(self) -> int:
        """Return how many there are."""
        return self._num

    def read(self, key: int | str, outputs: Mapping[str, Bytes]) -> Meta:
        """Write one image."""
        began = time.thread_time()
        outputs["source"][:] = int(key) % 251
        self.own_s += time.thread_time() - began
        return Meta(label=f"sample-{key:06}")


class Edit(_Part, Stage[Bytes, Facts, Meta]):
    """Copies an image."""

    reads = ("source",)
    writes = ("edited",)

    def specs(self, facts: Facts) -> dict[str, TensorSpec]:
        """Return one image."""
        return {"edited": TensorSpec((IMAGE_BYTES,), "uint8")}

    def load(self, device: str) -> None:
        """There are no weights."""

    def prepare(self, facts: Facts, size: int) -> int:
        """Take what is asked."""
        return size

    def run(
        self, inputs: Mapping[str, Bytes], outputs: Mapping[str, Bytes], item: Item[Meta]
    ) -> Meta:
        """Copy it."""
        began = time.thread_time()
        np.copyto(outputs["edited"], inputs["source"])
        self.own_s += time.thread_time() - began
        return item.meta


class Save(_Part, Sink[Bytes, Facts, Meta]):
    """Looks at an image; what is durable of it is its number in the runtime's journal."""

    reads = ("edited",)

    def open(self, facts: Facts) -> None:
        """Remember where the output goes."""
        self._job = facts.job
        self._durable: list[Durable] = []

    def write(self, item: Item[Meta], inputs: Mapping[str, Bytes], meta: Meta | None) -> int:
        """Look at both ends of it."""
        assert meta is not None, item.failed
        edited = inputs["edited"]
        if edited[0] != item.index % 251 or edited[-1] != edited[0]:
            raise ValueError(f"sample {item.index} is not what was read")
        self._durable.append(Durable(items=(item.index,), files=()))
        return 1

    def commit(self) -> list[Durable]:
        """Return what was written since the last call."""
        durable, self._durable = self._durable, []
        return durable

    def finish(self, items: Sequence[int]) -> None:
        """Say how many there were."""
        Path(self._job.output).write_text(str(len(items)))


class Collect(Samples):
    """Item i is a group of images, as a judge gets them."""

    writes = ("edits",)

    def open(self, job: Job) -> Facts:
        """Return how many images there are."""
        facts = super().open(job)
        groups = -(-facts.num_samples // GROUP)
        self.needs = [min((at + 1) * GROUP, facts.num_samples) for at in range(groups)]
        return facts

    def specs(self, facts: Facts) -> dict[str, TensorSpec]:
        """Return a group's images."""
        return {"edits": TensorSpec((GROUP, IMAGE_BYTES), "uint8")}

    def keys(self) -> Sequence[int]:
        """Return the numbers of the groups."""
        return range(len(self.needs))

    def read(self, key: int | str, outputs: Mapping[str, Bytes]) -> Meta:
        """Write a group's images."""
        began = time.thread_time()
        outputs["edits"][:] = int(key) % 251
        self.own_s += time.thread_time() - began
        return Meta(label=f"group-{key:06}")


class Judge(Edit):
    """Looks at a group's images."""

    reads = ("edits",)
    writes = ("judged",)

    def specs(self, facts: Facts) -> dict[str, TensorSpec]:
        """Return a number for each image."""
        return {"judged": TensorSpec((GROUP,), "uint8")}

    def run(
        self, inputs: Mapping[str, Bytes], outputs: Mapping[str, Bytes], item: Item[Meta]
    ) -> Meta:
        """Take the last number of each."""
        outputs["judged"][:] = inputs["edits"][:, -1]
        return item.meta


class Report(Save):
    """Looks at what was said of a group; a group counts as its images."""

    reads: Any = ("edits", "judged")

    def write(self, item: Item[Meta], inputs: Mapping[str, Bytes], meta: Meta | None) -> int:
        """Look at it."""
        assert meta is not None, item.failed
        if set(inputs["judged"].tolist()) != {item.index % 251}:
            raise ValueError(f"group {item.index} is not what was read")
        self._durable.append(Durable(items=(item.index,), files=()))
        return GROUP


class Wait(Stage[Bytes, SampleFacts, SampleMeta]):
    """Edits as a GPU does: takes time, no CPU, and leaves a picture that does not compress well."""

    library = "numpy"
    facts_type = SampleFacts
    meta_type = SampleMeta
    reads = ("source",)
    writes = ("edited",)

    def __init__(self, *, edit_s: float) -> None:
        self._edit_s = edit_s
        self._picture = np.random.default_rng(0).integers(0, 64, IMAGE_BYTES, np.uint8)

    def specs(self, facts: SampleFacts) -> dict[str, TensorSpec]:
        """Return one image."""
        return {"edited": TensorSpec((IMAGE_BYTES,), "uint8")}

    def load(self, device: str) -> None:
        """There are no weights."""

    def prepare(self, facts: SampleFacts, size: int) -> int:
        """Take what is asked."""
        return size

    def run(
        self, inputs: Mapping[str, Bytes], outputs: Mapping[str, Bytes], item: Item[SampleMeta]
    ) -> SampleMeta:
        """Take its time."""
        np.copyto(outputs["edited"], self._picture)
        time.sleep(self._edit_s)
        return replace(item.meta, edited_height=HEIGHT, edited_width=WIDTH)
