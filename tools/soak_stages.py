"""The three stages of tools/soak.py: a number, a sum that depends on it, and a file a segment."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from stages.base import Durable, Item, Job, Sink, Source, Stage, TensorSpec

Numbers = NDArray[np.uint64]
WIDTH = 4  # numbers of an item
FACTOR, TERM = np.uint64(6364136223846793005), np.uint64(1442695040888963407)  # of Knuth's MMIX
_SPEC = TensorSpec((WIDTH,), "int64")


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What is known of a soak."""

    job: Job
    num_items: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Meta:
    """What travels with an item: nothing."""


class Soaked(msgspec.Struct, frozen=True):
    """The output: what came of all items, in order."""

    num_items: int
    sha256: str  # of the digests of all segments


def numbers_of(items: NDArray[np.uint64]) -> Numbers:
    """Return what is read, [items, WIDTH]."""
    return items[:, None] * np.uint64(WIDTH) + np.arange(WIDTH, dtype=np.uint64)


def mixed(numbers: Numbers) -> Numbers:
    """Return what is computed of it, modulo 2**64."""
    return numbers * FACTOR + TERM


def expected(num_items: int, per_segment: int) -> Soaked:
    """Return the output of a run in which nothing is lost, and nothing comes twice."""
    total = hashlib.sha256()
    for first in range(0, num_items, per_segment):
        items = np.arange(first, min(first + per_segment, num_items), dtype=np.uint64)
        total.update(hashlib.sha256(mixed(numbers_of(items)).tobytes()).digest())
    return Soaked(num_items, total.hexdigest())


class _Part:
    library = "numpy"
    facts_type = Facts
    meta_type = Meta


class Count(_Part, Source[Any, Facts, Meta]):
    """Item i is the numbers WIDTH * i and up; the input file says how many items there are."""

    writes = ("x",)
    unit = "items"

    def open(self, job: Job) -> Facts:
        """Read how many."""
        self._facts = Facts(job=job, num_items=int(Path(job.input).read_text()))
        return self._facts

    def specs(self, facts: Facts) -> dict[str, TensorSpec]:
        """Return `x` [WIDTH]."""
        return {"x": _SPEC}

    def keys(self) -> Sequence[int]:
        """Return all items."""
        return range(self._facts.num_items)

    def num_units(self) -> int:
        """Return how many items there are."""
        return self._facts.num_items

    def read(self, key: int | str, outputs: Mapping[str, Any]) -> Meta:
        """Write the item's numbers."""
        outputs["x"].view(np.uint64)[:] = numbers_of(np.array([key], dtype=np.uint64))[0]
        return Meta()


class Mix(_Part, Stage[Any, Facts, Meta]):
    """Writes `y` of `x`."""

    reads = ("x",)
    writes = ("y",)

    def specs(self, facts: Facts) -> dict[str, TensorSpec]:
        """Return `y` [WIDTH]."""
        return {"y": _SPEC}

    def load(self, device: str) -> None:
        """There is nothing to load."""

    def prepare(self, facts: Facts, size: int) -> int:
        """Any size fits."""
        return size

    def run(self, inputs: Mapping[str, Any], outputs: Mapping[str, Any], item: Item[Meta]) -> Meta:
        """Mix the item's numbers."""
        outputs["y"].view(np.uint64)[:] = mixed(inputs["x"].view(np.uint64))
        return item.meta


class Digests(_Part, Sink[Any, Facts, Meta]):
    """One file a segment: the digest of its items, in order. The output is the digest of those."""

    reads = ("y",)

    def __init__(self, *, per_segment: int = 500) -> None:
        self._per_segment = per_segment
        self._durable: list[Durable] = []

    @property
    def items_per_segment(self) -> int:
        """Items of a file."""
        return self._per_segment

    def open(self, facts: Facts) -> None:
        """Make the folder of the segments."""
        self._facts = facts
        (Path(facts.job.work_dir) / "segments").mkdir(exist_ok=True)

    def write(self, item: Item[Meta], inputs: Mapping[str, Any], meta: Meta | None) -> int:
        """Add an item to the open segment; close it after the last."""
        if item.index % self._per_segment == 0:
            self._digest, self._items = hashlib.sha256(), list[int]()
        self._digest.update(inputs["y"].tobytes())
        self._items.append(item.index)
        if (item.index + 1) % self._per_segment == 0 or item.index + 1 == self._facts.num_items:
            self._close_segment(item.index // self._per_segment)
        return 1

    def commit(self) -> list[Durable]:
        """Return the segments that were closed."""
        durable, self._durable = self._durable, []
        return durable

    def finish(self, items: Sequence[int]) -> None:
        """Write the digest of all segments."""
        total = hashlib.sha256()
        for number in range(-(-len(items) // self._per_segment)):
            total.update(self._path(number).read_bytes())
        soaked = Soaked(len(items), total.hexdigest())
        Path(self._facts.job.output).write_bytes(msgspec.json.encode(soaked))

    def _close_segment(self, number: int) -> None:
        path = self._path(number)
        partial = path.with_suffix(".part")
        partial.write_bytes(self._digest.digest())
        os.replace(partial, path)
        name = str(path.relative_to(self._facts.job.work_dir))
        self._durable.append(Durable(items=tuple(self._items), files=(name,)))

    def _path(self, number: int) -> Path:
        return Path(self._facts.job.work_dir) / "segments" / f"{number:06}"
