"""Stages on torch tensors, with work that takes long enough that whoever does not wait errs."""

from __future__ import annotations

import os
import signal

import numpy as np
import torch

from stages.base import Item, Stage, TensorSpec
from tests.fakes import Facts, Lines, Meta

SPIN_CYCLES = 200_000  # some 0.1 ms of a GPU


class Double(Stage):
    """Writes `writes` = 2 * `reads` + 1. On a GPU it is an error to wait for that."""

    library = "torch"
    facts_type = Facts
    meta_type = Meta

    def __init__(self, *, reads: str = "x", writes: str = "y") -> None:
        self.reads, self.writes = (reads,), (writes,)
        self._device = torch.device("cpu")

    def specs(self, facts: Facts) -> dict[str, TensorSpec]:
        return {self.writes[0]: TensorSpec((facts.width,), "float32")}

    def load(self, device: str) -> None:
        self._device = torch.empty(0, device=device).device

    def prepare(self, facts: Facts, size: int) -> int:
        if self._device.type == "cuda":
            torch.zeros(8, device=self._device).mul(2).add(1)  # loads what `run` needs
            torch.cuda._sleep(1)
            torch.cuda.synchronize()
        return size

    def run(self, inputs, outputs, item: Item[Meta]) -> Meta:
        tensors = [*inputs.values(), *outputs.values()]
        assert {tensor.device for tensor in tensors} == {self._device}
        if self._device.type == "cuda":
            torch.cuda.set_sync_debug_mode("error")
            torch.cuda._sleep(SPIN_CYCLES)
        self.compute([inputs[name] for name in self.reads], outputs[self.writes[0]])
        if self._device.type == "cuda":
            torch.cuda.set_sync_debug_mode("default")
        return item.meta

    def compute(self, given: list[torch.Tensor], out: torch.Tensor) -> None:
        torch.mul(given[0], 2, out=out).add_(1)


class Plus(Double):
    """Writes the sum of two."""

    def __init__(self, *, reads: str, writes: str) -> None:
        super().__init__(reads="", writes=writes)
        self.reads = tuple(reads.split())

    def compute(self, given: list[torch.Tensor], out: torch.Tensor) -> None:
        torch.add(*given, out=out)


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


class BreaksTheGpuAt(RaisesAt):
    """Has a kernel fail, which the process learns of later, and never recovers from."""

    def fail(self) -> None:
        torch.zeros(1, device=self._device)[torch.tensor([7], device=self._device)]


class Ends(Lines):
    """A line per item with the first and the last number and the mean of each tensor."""

    def write(self, item: Item[Meta], inputs, meta: Meta | None) -> int:
        told = {
            name: np.array([x[0], x[-1], x.astype(np.float64).mean()]) for name, x in inputs.items()
        }
        return super().write(item, told, meta)
