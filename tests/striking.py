"""Stages that end their own process, each at one moment and so often in a run; then they behave.

`marks` is a folder of the test: a file in it, made with O_EXCL, says that something has happened,
so that whoever comes after the dead knows it. Configurations name these as tests.striking:Name.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import threading
import time
from pathlib import Path
from typing import Any
from zlib import crc32

from stages.base import Item
from tests.fakes import Add, Lines, Meta, Numbers

ALWAYS = 10**6  # times


def end(how: str) -> None:
    """End this process: "SIGKILL", another signal, or "exit 7"; "segfault" is a real one."""
    if how == "segfault":
        ctypes.string_at(0)
    elif how.startswith("exit "):
        os._exit(int(how.removeprefix("exit ")))
    else:
        os.kill(os.getpid(), signal.Signals[how])


def never_back(marks: Path, *, at: int, **options) -> dict[str, Any]:
    """Return a stage of a configuration that dies at item `at`, and then at every start."""
    strike = {"marks": str(marks), "at": at, "starts": {"again": "exit 7"}}
    return {"use": "tests.striking:Starts", "with": {"strike": strike, **options}}


class Marks:
    """What has happened so far, whoever did it."""

    def __init__(self, folder: str) -> None:
        self._folder = Path(folder)

    def count(self, name: str) -> int:
        """Note that `name` happens once more; return how often it did before."""
        number = 0
        while True:
            try:
                os.close(os.open(self._folder / f"{name}.{number}", os.O_CREAT | os.O_EXCL))
            except FileExistsError:
                number += 1
            else:
                return number


class Strikes:
    """Mixed into a stage: `strike` ends the process where and as often as the options say."""

    def arm(self, name: str, options: dict[str, Any] | None) -> None:
        """Take the options of the stage that is `name` among the marks.

        marks: their folder; at: the item, or "commit" or "finish"; how: as in `end`; times: how
        often in the whole run; kills: another worker that dies just before; starts: what starts
        do, by number, as `Starts` says.
        """
        given = {"marks": "", "at": -1, "how": "SIGKILL", "times": 1, "kills": "", "starts": {}}
        given |= options or {}
        self.name, self.marks, self.at = name, Marks(given["marks"]), given["at"]
        self.how, self.times, self.kills = given["how"], given["times"], given["kills"]
        self.starts = given["starts"]

    def strike(self, here: int | str) -> None:
        if here == self.at and self.marks.count(self.name) < self.times:
            if self.kills:
                kill(self.work_dir, self.kills)
            end(self.how)


def kill(work_dir: str, worker: str) -> None:
    os.kill(json.loads((Path(work_dir) / "workers.json").read_text())[worker], signal.SIGKILL)


class StrikingNumbers(Strikes, Numbers):
    def __init__(self, *, delay_s: float = 0.0, strike: dict[str, Any] | None = None) -> None:
        super().__init__(delay_s=delay_s)
        self.arm("read", strike)

    def open(self, job):
        self.work_dir = job.work_dir
        return super().open(job)

    def read(self, key, outputs):
        self.strike(key)
        return super().read(key, outputs)


class Hashes(Strikes, Add):
    """Writes of each number a hash of shape, row and neighbours: whatever is mixed up shows."""

    def __init__(
        self,
        *,
        reads: str = "x",
        writes: str = "y",
        raises_at: int = -1,
        delay_s: float = 0.0,
        mixes_attempt: bool = False,
        strike: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(reads=reads, writes=writes)
        self._raises_at, self._pause_s = raises_at, delay_s
        self._mixes_attempt = mixes_attempt
        self.arm(writes, strike)

    def prepare(self, facts, size):
        self.work_dir = facts.job.work_dir
        return size

    def run(self, inputs, outputs, item: Item[Meta]) -> Meta:
        self.strike(item.index)
        if item.index == self._raises_at:
            raise ValueError("frame pair has 3 frames")
        time.sleep(self._pause_s)
        rows = [float(value) for value in inputs[self.reads[0]]]
        attempt = item.attempt if self._mixes_attempt else 0
        for row, value in enumerate(rows):
            around = (rows[row - 1], value, rows[(row + 1) % len(rows)])
            told = (outputs[self.writes[0]].shape, row, around, attempt)
            outputs[self.writes[0]][row] = crc32(repr(told).encode()) % 99_991  # `%g` shows all
        return item.meta


class Starts(Hashes):
    """Its starts go wrong: by their number (0 is the first one), or "again": all but the first.

    "raise", "kill NAME/0", or as in `end`.
    """

    def prepare(self, facts, size):
        number = self.marks.count(f"{self.name} starts")
        what = self.starts.get(str(number), self.starts.get("again", "") if number else "")
        if what == "raise":
            raise OSError("weights: no such file")
        if what.startswith("kill "):
            kill(facts.job.work_dir, what.removeprefix("kill "))
            time.sleep(0.5)  # the start is slow: the other's death is seen while it goes on
        elif what:
            end(what)
        return super().prepare(facts, size)


class EndsIdle(Hashes):
    """Exits a moment after each start, whether it has anything to do or not."""

    def prepare(self, facts, size):
        self.marks.count(f"{self.name} starts")
        timer = threading.Timer(0.3, os._exit, [7])
        timer.daemon = True
        timer.start()
        return super().prepare(facts, size)


class StrikingLines(Strikes, Lines):
    def __init__(self, *, reads: str = "y", strike: dict[str, Any] | None = None) -> None:
        super().__init__(reads=reads, per_segment=4)
        self.arm("write", strike)

    def open(self, facts):
        self.work_dir = facts.job.work_dir
        super().open(facts)

    def write(self, item, inputs, meta):
        if not item.failed:
            self.strike(item.index)
        return super().write(item, inputs, meta)

    def commit(self):
        durable = super().commit()
        if durable:
            self.strike("commit")  # the file is there, and nobody has been told
        return durable

    def finish(self, items):
        super().finish(items)
        self.strike("finish")


class KillsEvenMarked(StrikingLines):
    def write(self, item, inputs, meta):
        self.strike(item.index)
        return super().write(item, inputs, meta)


class BusyOnce(Add):
    """Is busy for an hour at item 1, the first time."""

    def __init__(self, *, marks: str) -> None:
        super().__init__()
        self._marks = Marks(marks)

    def run(self, inputs, outputs, item: Item[Meta]) -> Meta:
        if item.index == 1 and not self._marks.count("busy"):
            time.sleep(3600)
        return super().run(inputs, outputs, item)
