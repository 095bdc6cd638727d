"""An editor, a judge and a store for edits without models, each with what may go wrong in it."""

from __future__ import annotations

import errno
import json
import os
import signal
import time
from dataclasses import replace
from hashlib import blake2b
from pathlib import Path

import numpy as np

from stages.base import Stage, TensorSpec
from stages.benchmark.facts import SampleFacts, SampleMeta, edited_size
from stages.benchmark.save import SaveEdits
from stages.judging.judge import Answer, Judge


class FakeEdit(Stage):
    """Makes an edit of its sample's own source, seed and instruction, and says when it began.

    Args:
        area: pixels of an edit, about.
        refuse: ids of samples that it fails.
        delay_s: how long an edit takes, whatever else runs.
        kill_at: id of a sample at which its worker dies, the first time.
        hold_at: id of a sample at which it waits for the file `go` beside `log`.
        log: a file that gets a line for each edit that begins: id, worker, time.
    """

    library = "numpy"
    facts_type, meta_type = SampleFacts, SampleMeta
    reads, writes = ("source",), ("edited",)

    def __init__(
        self,
        *,
        area: int,
        refuse: tuple[str, ...] = (),
        delay_s: float = 0.0,
        kill_at: str = "",
        hold_at: str = "",
        log: str = "",
    ) -> None:
        self._area, self._delay_s, self._log = area, delay_s, log
        self._refuse = refuse
        self._kill_at, self._hold_at = kill_at, hold_at

    def specs(self, facts: SampleFacts) -> dict[str, TensorSpec]:
        sizes = [edited_size(*size, self._area) for size in facts.sizes]
        return {"edited": TensorSpec((max(high * wide * 3 for high, wide in sizes),), "uint8")}

    def load(self, device: str) -> None:
        pass

    def prepare(self, facts: SampleFacts, size: int) -> int:
        return size

    def run(self, inputs, outputs, item):
        meta = item.meta
        self._tell(meta.id)
        if meta.id in self._refuse:
            raise ValueError(f"{meta.id} is refused")
        if meta.id == self._kill_at and item.attempt == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        if meta.id == self._hold_at:
            _wait_for(Path(self._log).with_name("go"))
        time.sleep(self._delay_s)
        high, wide = edited_size(meta.height, meta.width, self._area)
        outputs["edited"][:] = 0
        outputs["edited"][: high * wide * 3] = made_of(inputs["source"], meta, (high, wide))
        return replace(meta, edited_height=high, edited_width=wide, steps=2, passes=4, tflop=0.25)

    def _tell(self, sample: str) -> None:
        if self._log:
            line = json.dumps({"id": sample, "pid": os.getpid(), "at": time.monotonic()}) + "\n"
            with open(self._log, "ab", buffering=0) as file:  # one write: lines stay whole
                file.write(line.encode())


def made_of(source, meta, size):
    """Return the pixels of an edit, flat: noise by the seed over the source's beginning."""
    count = size[0] * size[1] * 3
    told = blake2b(f"{meta.seed} {meta.instruction}".encode(), digest_size=8).digest()
    noise = np.random.default_rng(int.from_bytes(told)).integers(0, 64, count, dtype=np.uint8)
    pixels = source[: meta.height * meta.width * 3]
    return np.resize(pixels, count) // 2 + noise


def _wait_for(path: Path) -> None:
    deadline = time.monotonic() + 60
    while not path.exists() and time.monotonic() < deadline:
        time.sleep(0.01)


class Echoes(Judge):
    """Scores by pixels, and says in which row of how many: another batch, another answer.

    Args:
        mute: part of a question to which it answers nonsense.
        delay_s: of a group.
    """

    library = "numpy"

    def __init__(self, *, protocol: str, mute: str = "", delay_s: float = 0.0) -> None:
        super().__init__(protocol=protocol)
        self._mute, self._delay_s, self._rows = mute, delay_s, 0

    @property
    def rows_at_once(self) -> int:
        return self._rows

    def load(self, device: str) -> None:
        pass

    def prepare(self, facts, size: int) -> int:
        self._rows = facts.group_size
        return size

    def ask(self, asked, said):
        time.sleep(self._delay_s)
        return [self._answer(one, len(asked)) for one in asked]

    def _answer(self, one, count: int) -> Answer:
        if self._mute and self._mute in one.question.text:
            return Answer("I would rather not say")
        seen = b"".join(np.ascontiguousarray(picture.pixels).tobytes() for picture in one.pictures)
        told = blake2b(seen + one.question.text.encode(), digest_size=8).hexdigest()
        return Answer(f"{told}, row {one.row} of {count}.\nScore: {int(told, 16) % 101 / 10}")


class FullAfter(SaveEdits):
    """Has room for so many edits, and none for any more while the file `full` is there."""

    def __init__(self, *, room: int, full: str, **options) -> None:
        super().__init__(**options)
        self._room, self._full = room, full

    def write(self, item, inputs, meta):
        if self._room == 0 and Path(self._full).exists():
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "edits/x.png")
        self._room -= 1
        return super().write(item, inputs, meta)
