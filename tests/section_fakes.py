"""Two sections without models: numbers are kept one by one, then read in threes and summed."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from stages.base import Durable, Item, Job, Sink, Source, TensorSpec
from stages.output import publish
from tests.fakes import Facts, Meta, _Fake

GROUP = 3


class Keeps(_Fake, Sink):
    """Each item is a file: its numbers, or why it failed."""

    reads = ("y",)

    def open(self, facts: Facts) -> None:
        self._job = facts.job
        self._folder = Path(facts.job.work_dir) / "kept"
        self._folder.mkdir(exist_ok=True)
        self._durable: list[Durable] = []

    def write(self, item: Item[Meta], inputs, meta: Meta | None) -> int:
        name = f"kept/{item.index:03}.json"
        kept = {"failed": item.failed} if item.failed else {"y": inputs["y"].tolist()}
        (self._folder.parent / name).write_text(json.dumps(kept))
        self._durable.append(Durable(items=(item.index,), files=(name,)))
        return int(not item.failed)

    def commit(self) -> list[Durable]:
        durable, self._durable = self._durable, []
        return durable

    def finish(self, items: Sequence[int]) -> None:
        temporary = Path(self._job.output).with_suffix(".partial")
        temporary.write_text(json.dumps(len(items)))
        publish(temporary, Path(self._job.output), Path(self._job.work_dir))


class KeepsUntil(Keeps):
    """Keeps four items, then finds no room."""

    def write(self, item: Item[Meta], inputs, meta: Meta | None) -> int:
        if item.index >= GROUP + 1:
            raise OSError("no more")
        return super().write(item, inputs, meta)


class Groups(_Fake, Source):
    """Item i is the numbers of items 3 i, 3 i + 1 and 3 i + 2 of the section before, as `x`."""

    writes = ("x",)
    unit = "groups"

    def __init__(self, *, width: int = 4) -> None:
        self._width = width

    def open(self, job: Job) -> Facts:
        self._num = int(Path(job.input).read_text())
        groups = -(-self._num // GROUP)
        self.needs = [min((group + 1) * GROUP, self._num) for group in range(groups)]
        self._folder = Path(job.earlier) / "kept"
        return Facts(job=job, num_items=groups, width=GROUP * self._width)

    def specs(self, facts: Facts) -> dict[str, TensorSpec]:
        return {"x": TensorSpec((facts.width,), "float32")}

    def keys(self) -> Sequence[int]:
        return range(len(self.needs))

    def num_units(self) -> int:
        return len(self.needs)

    def read(self, key: int, outputs) -> Meta:
        outputs["x"][:] = 0
        failed = []
        for row, item in enumerate(range(key * GROUP, self.needs[key])):
            kept = json.loads((self._folder / f"{item:03}.json").read_text())
            if "failed" in kept:
                failed.append(item)
            else:
                start = row * self._width
                outputs["x"][start : start + self._width] = np.array(kept["y"])
        return Meta(label=f"group {key} without {failed}" if failed else f"group {key}")


class GroupsThatWait(Groups):
    """Checks that nothing is read before it is durable, and says how many there were then."""

    def read(self, key: int, outputs) -> Meta:
        there = len(list(self._folder.glob("*.json")))
        assert there >= self.needs[key], f"{there} of {self.needs[key]}"
        return super().read(key, outputs)


class Again(Groups):
    """Item i is the numbers of item i of the section before, as `y`."""

    writes = ("y",)

    def open(self, job: Job) -> Facts:
        num = int(Path(job.input).read_text())
        self.needs = range(1, num + 1)
        self._folder = Path(job.earlier) / "kept"
        return Facts(job=job, num_items=num, width=self._width)

    def specs(self, facts: Facts) -> dict[str, TensorSpec]:
        return {"y": TensorSpec((facts.width,), "float32")}

    def read(self, key: int, outputs) -> Meta:
        outputs["y"][:] = json.loads((self._folder / f"{key:03}.json").read_text())["y"]
        return Meta(label=f"item {key}")
