"""A pipeline that shows what results depend on: hashes of each row, and of what is asked for.

A stage of a model must depend on nothing but its inputs and their place in the job. With `of`
this one depends on more, as a stage with a fault would, so that a test of determinism can fail.
"""

import os
import signal
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import numpy as np

from stages.base import Durable, Item, Job, Sink, Source, Stage, TensorSpec

WIDTH, HASH_BYTES = 4, 32
ALL = "shape row neighbours attempt"


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    job: Job
    num_rows: int
    rows: int  # of an item

    @property
    def num_items(self) -> int:
        return -(-self.num_rows // self.rows)


@dataclass(frozen=True, slots=True, kw_only=True)
class Meta:
    num_rows: int  # that are real


class _Part:
    library = "numpy"
    facts_type = Facts
    meta_type = Meta


class Rows(_Part, Source):
    """Items of `rows` rows; the input file says how many rows there are in all."""

    writes = ("x",)
    unit = "rows"

    def __init__(self, *, rows: int) -> None:
        self._rows = rows

    def open(self, job: Job) -> Facts:
        self._facts = Facts(job=job, num_rows=int(Path(job.input).read_text()), rows=self._rows)
        return self._facts

    def specs(self, facts: Facts) -> dict[str, TensorSpec]:
        return {"x": TensorSpec((facts.rows, WIDTH), "int64")}

    def keys(self):
        return range(self._facts.num_items)

    def num_units(self) -> int:
        return self._facts.num_rows

    def read(self, key, outputs) -> Meta:
        first = key * self._rows
        outputs["x"][:] = (first + np.arange(self._rows))[:, None] ** np.arange(WIDTH)
        return Meta(num_rows=min(self._rows, self._facts.num_rows - first))


class Hashes(_Part, Stage):
    """Writes the hash of each row, and of what else `of` names; dies once at item `killed_at`."""

    reads, writes = ("x",), ("y",)

    def __init__(self, *, of: str = "", killed_at: int = -1) -> None:
        self._of, self._killed_at = of.split(), killed_at
        assert set(self._of) <= set(ALL.split()), of

    def specs(self, facts: Facts) -> dict[str, TensorSpec]:
        return {"y": TensorSpec((facts.rows, HASH_BYTES), "uint8")}

    def load(self, device: str) -> None:
        pass

    def prepare(self, facts: Facts, size: int) -> int:
        return size

    def run(self, inputs, outputs, item: Item[Meta]) -> Meta:
        if item.index == self._killed_at and item.attempt == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        x = inputs["x"]
        for row in range(item.meta.num_rows):
            seen = {
                "shape": str(x.shape).encode(),
                "row": bytes([row]),
                "neighbours": np.delete(x, row, axis=0).tobytes(),
                "attempt": bytes([item.attempt]),
            }
            digest = sha256(x[row].tobytes())
            for name in self._of:
                digest.update(seen[name])
            outputs["y"][row] = np.frombuffer(digest.digest(), np.uint8)
        return item.meta


class Hexes(_Part, Sink):
    """One line a row; a file per item, joined."""

    reads = ("y",)

    def open(self, facts: Facts) -> None:
        self._folder = Path(facts.job.work_dir) / "segments"
        self._folder.mkdir(exist_ok=True)
        self._output = Path(facts.job.output)
        self._durable = []

    def write(self, item: Item[Meta], inputs, meta: Meta | None) -> int:
        path = self._folder / f"{item.index:06}"
        path.write_text("".join(f"{row.tobytes().hex()}\n" for row in inputs["y"][: meta.num_rows]))
        self._durable.append(Durable(items=(item.index,), files=(f"segments/{path.name}",)))
        return meta.num_rows

    def commit(self):
        durable, self._durable = self._durable, []
        return durable

    def finish(self, items) -> None:
        self._output.write_text("".join((self._folder / f"{i:06}").read_text() for i in items))
