"""How many hostile cases are tried, and trying them: in processes that may hang or crash.

A case is a seed. `python -m tests.hostile.child configs 4711` tries one by itself.
"""

from __future__ import annotations

import os
import select
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[2]
NUM_VARIABLE = "RUNPIPE_HOSTILE_CASES"  # overrides how many a surface is given at night
NUM_NIGHTLY = int(os.environ.get(NUM_VARIABLE, "20000"))
NIGHT_SEED = 1_000_000  # the night tries others than the day
START_S = 300.0  # how long a process may take to its first case: torch is slow to import
MAX_DEFECTS = 10  # of one process; more would say no more


def seeds(short: int) -> pytest.MarkDecorator:
    """Parametrize a test with the `first` seed and the `number` of cases, by day and by night."""
    night = pytest.param(NIGHT_SEED, NUM_NIGHTLY, id="night", marks=_night_marks())
    return pytest.mark.parametrize(("first", "number"), [pytest.param(0, short, id="day"), night])


def _night_marks() -> tuple[pytest.MarkDecorator, ...]:
    return pytest.mark.nightly, pytest.mark.slow


@dataclass
class _Child:
    """One process at work on a range of seeds."""

    surface: str
    folder: Path
    timeout_s: float
    defects: list[str] = field(default_factory=list)
    num_starts: int = 0

    def run(self, first: int, end: int) -> list[str]:
        """Try the seeds [first, end); start anew, in a new folder, behind one that ends it all."""
        begun = -1  # where the last start began: one that comes to no case is the last
        while first not in (end, begun) and len(self.defects) < MAX_DEFECTS:
            begun, first = first, self._run_once(first, end)
        return self.defects

    def _run_once(self, first: int, end: int) -> int:
        """Return the seed to go on with."""
        self.num_starts += 1
        folder = self.folder / str(self.num_starts)
        folder.mkdir()
        read, write = os.pipe()
        command = [sys.executable, "-P", "-m", "tests.hostile.child", self.surface]
        command += [str(first), str(end), str(folder), str(write)]
        environment = {**os.environ, "PYTHONPATH": str(PROJECT), "MALLOC_ARENA_MAX": "2"}
        log = folder / "child.log"
        with log.open("wb") as output, open(read, "rb", buffering=0) as told:
            child = subprocess.Popen(
                command, pass_fds=(write,), env=environment, stdout=output, stderr=output
            )
            os.close(write)
            try:
                at, why = self._follow(child, told.fileno(), first - 1)
            finally:
                child.kill()
                code = child.wait()
        if why == "" and code == 0:
            return end
        last_words = log.read_text(errors="replace")[-1500:]
        self.defects.append(f"case {at}: {why or f'ended with {code}'}\n{last_words}")
        return at + 1

    def _follow(self, child: subprocess.Popen[bytes], told: int, at: int) -> tuple[int, str]:
        """Hear what the process says; return the last case, and why it was not well."""
        deadline, rest = time.monotonic() + START_S, b""
        while True:
            ready, _, _ = select.select([told], [], [], max(0.0, deadline - time.monotonic()))
            if not ready:
                return at, "took too long to a case, or to the first"
            part = os.read(told, 65536)
            if not part:
                code = child.wait(timeout=START_S)
                return at, "" if code == 0 else f"the process ended with {code}"
            *lines, rest = (rest + part).split(b"\n")
            for line in lines:
                if line.startswith(b"!"):
                    self.defects.append(f"case {at}: {line[1:].decode().replace(chr(1), chr(10))}")
                else:
                    at = int(line)
            deadline = time.monotonic() + self.timeout_s


def defects_of(
    surface: str, folder: Path, first: int, number: int, *, timeout_s: float = 120.0
) -> list[str]:
    """Try `number` cases on all cores; return what went wrong, each with its seed.

    Args:
        surface: module of this package that has the class `Surface`.
        folder: for its files.
        first: seed.
        number: of cases.
        timeout_s: of one case; one that takes longer hangs.
    """
    num_processes = min(os.cpu_count() or 1, max(1, number // 50))
    edges = [first + number * part // num_processes for part in range(num_processes + 1)]

    def work(part: int) -> list[str]:
        place = folder / str(part)
        place.mkdir()
        return _Child(surface, place, timeout_s).run(edges[part], edges[part + 1])

    with ThreadPoolExecutor(num_processes) as pool:
        return [defect for found in pool.map(work, range(num_processes)) for defect in found]
