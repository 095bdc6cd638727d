"""Stages for a GPU, real or fake, with work that takes so long that whoever does not wait errs."""

from __future__ import annotations

import importlib
import os
import signal

import numpy as np

from stages.base import Item, Stage, TensorSpec
from tests.fakes import Facts, Lines, Meta
from tests.striking import Marks

IS_FAKE = "FAKE_CUDA_GPUS" in os.environ
gpu = importlib.import_module("tests.fake_torch" if IS_FAKE else "tests.gpu_kernels")


class Double(Stage):
    """Writes `writes` = 2 * `reads` + 1."""

    library = "torch"
    facts_type = Facts
    meta_type = Meta

    def __init__(self, *, reads: str = "x", writes: str = "y") -> None:
        self.reads, self.writes = (reads,), (writes,)

    def specs(self, facts: Facts) -> dict[str, TensorSpec]:
        return {self.writes[0]: TensorSpec((facts.width,), "float32")}

    def load(self, device: str) -> None:
        self._device = gpu.place(device)

    def prepare(self, facts: Facts, size: int) -> int:
        gpu.warm_up(self._device)
        return size

    def run(self, inputs, outputs, item: Item[Meta]) -> Meta:
        given, out = [inputs[name] for name in self.reads], outputs[self.writes[0]]
        gpu.queue(self._device, given, [out], lambda: self.compute(given, out))
        return item.meta

    def compute(self, given, out) -> None:
        out[:] = given[0]
        out *= 2
        out += 1


class DoubleNotes(Double):
    """Notes when it is closed."""

    def close(self) -> None:
        note("closes a stage")


def note(what: str) -> None:
    """Write down what this process does, for tests of the order."""
    with open(os.environ["FAKE_CUDA_NOTES"], "a") as file:
        file.write(f"{os.getpid()} {what}\n")


class Plus(Double):
    """Writes the sum of two."""

    def __init__(self, *, reads: str, writes: str) -> None:
        super().__init__(reads="", writes=writes)
        self.reads = tuple(reads.split())

    def compute(self, given, out) -> None:
        out[:] = given[0]
        out += given[1]


class RaisesAt(Double):
    def __init__(self, *, poison: int, reads: str = "x", writes: str = "y") -> None:
        super().__init__(reads=reads, writes=writes)
        self._poison = poison

    def run(self, inputs, outputs, item: Item[Meta]) -> Meta:
        if item.index == self._poison:
            self.fail()
        return super().run(inputs, outputs, item)

    def fail(self) -> None:
        raise ValueError("frame pair has 3 frames")


class KilledAt(RaisesAt):
    """Dies with work of earlier items still on the GPU."""

    def fail(self) -> None:
        os.kill(os.getpid(), signal.SIGKILL)


class KilledOnceAt(KilledAt):
    """Dies so, if nobody has before: `marks` is a folder that remembers it."""

    def __init__(self, *, poison: int, marks: str, reads: str = "x", writes: str = "y") -> None:
        super().__init__(poison=poison, reads=reads, writes=writes)
        self._marks = Marks(marks)

    def fail(self) -> None:
        if self._marks.count("killed") == 0:
            super().fail()


class BreaksTheGpuAt(RaisesAt):
    """Has a kernel fail."""

    def fail(self) -> None:
        gpu.break_gpu(self._device)


class Ends(Lines):
    """A line per item with the first and the last number and the mean of each tensor."""

    def write(self, item: Item[Meta], inputs, meta: Meta | None) -> int:
        told = {
            name: np.array([x[0], x[-1], x.astype(np.float64).mean()]) for name, x in inputs.items()
        }
        return super().write(item, told, meta)
