"""Stages for runs that end early and are resumed: they note what they do, and fail for a while."""

from __future__ import annotations

import errno
import os
from pathlib import Path

from stages.base import Item
from tests.fakes import Add, FitsOnly, Lines, Meta


class Notes(Add):
    """Adds, and notes which items it was given in a file beside the input."""

    def __init__(self, *, log: str, delay_s: float = 0.0) -> None:
        super().__init__(delay_s=delay_s)
        self._log = log

    def run(self, inputs, outputs, item: Item[Meta]) -> Meta:
        with open(self._log, "a") as log:
            log.write(f"{item.index}\n")
        return super().run(inputs, outputs, item)


class NotesItsStart(Notes):
    """Notes loading and preparing too, as items that there are not."""

    def _note(self, number: int) -> None:
        with open(self._log, "a") as log:
            log.write(f"{number}\n")

    def load(self, device: str) -> None:
        self._note(-2)

    def prepare(self, facts, size: int) -> int:
        self._note(-1)
        return size


class FullDisk(Lines):
    """A sink for which the disk is full from item `at` on, as long as the file `full` exists."""

    def __init__(self, *, full: str, at: int, per_segment: int = 2) -> None:
        super().__init__(per_segment=per_segment)
        self._full, self._at = Path(full), at

    def write(self, item: Item[Meta], inputs, meta: Meta | None) -> int:
        if item.index >= self._at:
            self._check()
        return super().write(item, inputs, meta)

    def _check(self) -> None:
        if self._full.exists():
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


class FullAtTheEnd(FullDisk):
    """All segments fit; their join does not."""

    def write(self, item: Item[Meta], inputs, meta: Meta | None) -> int:
        return Lines.write(self, item, inputs, meta)

    def finish(self, items) -> None:
        self._check()
        super().finish(items)


class RaisesAtOne(Notes):
    """One item fails."""

    def run(self, inputs, outputs, item: Item[Meta]) -> Meta:
        if item.index == 1:
            raise ValueError("no good")
        return super().run(inputs, outputs, item)


class FitsAsSaid(FitsOnly):
    """Takes items of at most what a file says."""

    def __init__(self, *, file: str) -> None:
        super().__init__(fits=int(Path(file).read_text()))


class LoadsNothing(Add):
    """Finds no memory to load in, as long as the file `full` exists."""

    def __init__(self, *, full: str) -> None:
        super().__init__()
        self._full = Path(full)

    def load(self, device: str) -> None:
        if self._full.exists():
            raise MemoryError("8 EiB")
