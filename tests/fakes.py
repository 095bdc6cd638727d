"""Stages without models, each with one behaviour; named in configurations as tests.fakes:Name."""

from __future__ import annotations

import ctypes
import os
import signal
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from stages.base import Durable, Item, Job, Sink, Source, Stage, TensorSpec, UserError


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    job: Job
    num_items: int
    width: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Meta:
    label: str


class _Fake:
    library = "numpy"
    facts_type = Facts
    meta_type = Meta


class Numbers(_Fake, Source):
    """Item i is the vector (i, i + 1, ...) as `x`; the input file says how many items there are."""

    writes = ("x",)
    unit = "numbers"

    def __init__(self, *, width: int = 4, delay_s: float = 0.0) -> None:
        self._width, self._delay_s = width, delay_s

    def open(self, job: Job) -> Facts:
        text = Path(job.input).read_text()
        if not text.strip().isdigit():
            raise UserError(f"{job.input}: wanted a number of items, found {text!r}")
        self._facts = Facts(job=job, num_items=int(text), width=self._width)
        return self._facts

    def specs(self, facts: Facts) -> dict[str, TensorSpec]:
        return {"x": TensorSpec((facts.width,), "float32")}

    def keys(self) -> Sequence[int]:
        return range(self._facts.num_items)

    def num_units(self) -> int:
        return self._facts.num_items

    def read(self, key: int, outputs) -> Meta:
        time.sleep(self._delay_s)
        outputs["x"][:] = np.arange(key, key + self._width)
        return Meta(label=f"item {key}")


class Add(_Fake, Stage):
    """Writes `writes` = `reads` + `amount`; sleeps a while that depends on item and process."""

    def __init__(
        self, *, reads: str = "x", writes: str = "y", amount: float = 1.0, delay_s: float = 0.0
    ) -> None:
        self.reads, self.writes = (reads,), (writes,)
        self._amount, self._delay_s = amount, delay_s

    def specs(self, facts: Facts) -> dict[str, TensorSpec]:
        return {self.writes[0]: TensorSpec((facts.width,), "float32")}

    def load(self, device: str) -> None:
        pass

    def prepare(self, facts: Facts, size: int) -> int:
        return size

    def run(self, inputs, outputs, item: Item[Meta]) -> Meta:
        if self._delay_s:
            time.sleep(self._delay_s * ((item.index * 7919 + os.getpid()) % 10) / 10)
        np.add(inputs[self.reads[0]], self._amount, out=outputs[self.writes[0]])
        return item.meta


class Sum(Add):
    """Reads a long vector, writes one number."""

    def specs(self, facts: Facts) -> dict[str, TensorSpec]:
        return {"y": TensorSpec((1,), "float32")}

    def run(self, inputs, outputs, item: Item[Meta]) -> Meta:
        outputs["y"][0] = inputs["x"].sum()
        return item.meta


class Copies(Add):
    """Copies in and out, as a stage on a GPU does."""

    def run(self, inputs, outputs, item: Item[Meta]) -> Meta:
        with item.part("copy"):
            here = inputs[self.reads[0]].copy()
        there = here + self._amount
        with item.part("copy"):
            outputs[self.writes[0]][:] = there
        return item.meta


class KilledAt(Add):
    """Dies by SIGKILL, as the OOM killer would do it, at item `poison`."""

    def __init__(self, *, poison: int, reads: str = "x", writes: str = "y") -> None:
        super().__init__(reads=reads, writes=writes)
        self._poison = poison

    def die(self) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    def run(self, inputs, outputs, item: Item[Meta]) -> Meta:
        if item.index == self._poison:
            self.die()
        return super().run(inputs, outputs, item)


class SegfaultsAt(KilledAt):
    def die(self) -> None:
        ctypes.string_at(0)


class ExitsAt(KilledAt):
    def die(self) -> None:
        os._exit(7)


class StopsAt(KilledAt):
    """Neither runs nor ends any more: SIGSTOP."""

    def die(self) -> None:
        os.kill(os.getpid(), signal.SIGSTOP)


class RaisesAt(KilledAt):
    def die(self) -> None:
        raise ValueError("frame pair has 3 frames")


class RaisesAlways(Add):
    def run(self, inputs, outputs, item: Item[Meta]) -> Meta:
        raise ValueError("no")


class ReadsAllBut(Numbers):
    """Numbers of which `poison` cannot be read."""

    def __init__(self, *, poison: int) -> None:
        super().__init__()
        self._poison = poison

    def read(self, key: int, outputs) -> Meta:
        if key == self._poison:
            self.die()
        return super().read(key, outputs)

    def die(self) -> None:
        raise ValueError("frame pair has 3 frames")


class BrokenNumbers(Numbers):
    """Numbers that were more once."""

    def open(self, job: Job) -> Facts:
        facts = super().open(job)
        self.warnings = ("half a file",)
        self.broken = f"{job.input}: torn at {facts.num_items}"
        return facts


class WritesItsInput(Add):
    def run(self, inputs, outputs, item: Item[Meta]) -> Meta:
        inputs[self.reads[0]][0] = 7
        return item.meta


class KeepsAView(Add):
    """A bug in a stage: it keeps what it was only lent."""

    def run(self, inputs, outputs, item: Item[Meta]) -> Meta:
        self._kept = inputs[self.reads[0]]
        return super().run(inputs, outputs, item)


class FailsToLoad(Add):
    def load(self, device: str) -> None:
        raise OSError("weights: no such file")


class DeafToStop(Add):
    """Ignores SIGTERM and is busy for an hour at item 1."""

    def load(self, device: str) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)

    def run(self, inputs, outputs, item: Item[Meta]) -> Meta:
        if item.index == 1:
            time.sleep(3600)
        return super().run(inputs, outputs, item)


class FitsOnly(Add):
    """Takes items of at most `fits`."""

    def __init__(self, *, fits: int) -> None:
        super().__init__()
        self._fits = fits

    def prepare(self, facts: Facts, size: int) -> int:
        return min(self._fits, size)


class Sized(Numbers):
    """Numbers whose items get `size` numbers, so that a smaller size means more items."""

    def __init__(self, *, size: int) -> None:
        super().__init__(width=size)
        self._size = size

    @property
    def item_size(self) -> int:
        return self._size

    def open(self, job: Job) -> Facts:
        self._size = self._width = job.size or self._size
        total = int(Path(job.input).read_text())
        self._facts = Facts(job=job, num_items=-(-total // self._size), width=self._size)
        return self._facts


class Lines(_Fake, Sink):
    """One line per item: index, label, and the tensors it reads; a file per segment, joined."""

    def __init__(self, *, reads: str = "y", per_segment: int = 2) -> None:
        self.reads = tuple(reads.split())
        self._per_segment = per_segment

    @property
    def items_per_segment(self) -> int:
        return self._per_segment

    def open(self, facts: Facts) -> None:
        self._facts = facts
        self._folder = Path(facts.job.work_dir) / "segments"
        self._folder.mkdir(exist_ok=True)
        self._open: list[tuple[int, str]] = []
        self._num_done = 0  # in the open segment
        self._durable: list[Durable] = []

    def write(self, item: Item[Meta], inputs, meta: Meta | None) -> int:
        expected = self._open[-1][0] + 1 if self._open else item.index
        assert item.index == expected, "items of a segment arrive in order"
        values = item.failed or ";".join(
            " ".join(f"{v:g}" for v in inputs[name]) for name in self.reads
        )
        label = meta.label if meta else "never read"
        self._open.append((item.index, f"{item.index}|{label}|{values}\n"))
        self._num_done += not item.failed
        last = item.index + 1 == self._facts.num_items
        if len(self._open) == self._per_segment or last:
            self._close_segment()
        return 0 if item.failed else 1

    def _close_segment(self) -> None:
        first = self._open[0][0]
        assert first % self._per_segment == 0, "a segment is written by one replica"
        name = f"segments/{first // self._per_segment:06d}.txt"
        path = Path(self._facts.job.work_dir) / name
        path.write_text("".join(line for _index, line in self._open))
        items = tuple(index for index, _line in self._open)
        self._durable.append(
            Durable(items=items, files=(name,), counts={"numbers": self._num_done, "lines": 1})
        )
        self._num_done = 0
        self._open = []

    def commit(self) -> list[Durable]:
        durable, self._durable = self._durable, []
        return durable

    def finish(self, items: Sequence[int]) -> None:
        assert list(items) == list(range(self._facts.num_items))
        with Path(self._facts.job.output).open("w") as output:
            for path in sorted(self._folder.iterdir()):
                output.write(path.read_text())
