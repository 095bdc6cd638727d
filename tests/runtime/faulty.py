"""Stages that go wrong in ways that only few tests need; the common ones are in tests/fakes.py."""

from dataclasses import replace
from random import Random

from stages.base import Durable, Item, UserError
from tests.fakes import Add, Lines, Meta, Numbers, Sized


class QuotesItsTensor(Add):
    def run(self, inputs, outputs, item: Item[Meta]) -> Meta:
        raise ValueError("no such number: " + "7 " * 3_000_000)


class FindsNoMemory(Add):
    def run(self, inputs, outputs, item: Item[Meta]) -> Meta:
        if item.index == 3:
            raise MemoryError  # as Python itself does, without a word
        return super().run(inputs, outputs, item)


class FindsTheDiskFull(Lines):
    def commit(self):
        raise OSError(28, "No space left on device")


class RefusesToFinish(Lines):
    def finish(self, items):
        raise UserError("out.txt: exists already")


class OneSize(Sized):
    """Does not care for the size that it is told."""

    def open(self, job):
        return super().open(replace(job, size=0))


class FailsByChance(Add):
    """Raises for a share of the items, the same in every replica."""

    def __init__(self, *, reads: str, writes: str, chance: float, unread: str = "") -> None:
        super().__init__(reads=reads, writes=writes)
        self._chance = chance
        self.writes += tuple(unread.split())  # as many tensors more

    def specs(self, facts):
        (spec,) = super().specs(facts).values()
        return dict.fromkeys(self.writes, spec)

    def begin(self, num_items: int) -> None:
        pass

    def run(self, inputs, outputs, item: Item[Meta]) -> Meta:
        if Random(f"{self.writes} {item.index}").random() < self._chance:
            raise ValueError("bad luck")
        return super().run(inputs, outputs, item)


class ReadsByChance(Numbers):
    def begin(self, num_items: int) -> None:
        self._num_items = num_items

    def keys(self):
        return range(self._num_items)

    def read(self, key, outputs):
        if Random(f"read {key}").random() < 0.1:
            raise OSError("unreadable")
        return super().read(key, outputs)


class WritesWhatThereIs(Lines):
    """Closes the place of a failed item, whatever of it there is."""

    def begin(self, num_items: int) -> None:
        self._num_items = num_items
        self._durable = []

    def write(self, item, inputs, meta):
        assert item.failed or set(inputs) == set(self.reads)
        self._durable.append(Durable(items=(item.index,), files=(), counts={}))
        return 0 if item.failed else 1
