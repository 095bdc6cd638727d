"""The results of the kill matrix: kept line by line, and as the table in RELIABILITY.md."""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import msgspec

from runtime.atomic import write_atomically
from tools.kill_cells import WORKERS, Cell
from tools.kill_judge import Result
from tools.kill_order import SUPERVISOR

PROJECT = Path(__file__).resolve().parent.parent
SOURCES = ("bin", "ipc", "runtime", "stages")  # what a result depends on, and tools/kill*.py
BEGIN, END = "<!-- kill matrix: made by tools/kill_matrix.py -->", "<!-- end of the kill matrix -->"
WAYS = {
    "exit": "`os._exit`",
    "run": "exception in `run`",
    "load-start": "exception in `load`, at start",
    "load-restart": "SIGKILL, then an exception in `load`",
    "load-restart-always": "SIGKILL, then exceptions in `load` without end",
}
COLUMNS = {
    "first": "before the first item",
    "middle": "in the middle",
    "interrupted": "after Ctrl-C",
    "last": "at the last",
    "draining": "while draining",
    "joined": "once joined",
}


class ResultFile:
    """Results as JSON lines, appended one by one; those of other sources do not count."""

    def __init__(self, path: Path, sources: str) -> None:
        """Read what is there; a line that was cut off, as by a kill, counts for nothing."""
        self._path, self._lock = path, threading.Lock()
        self.results: dict[str, Result] = {}
        text = path.read_bytes() if path.exists() else b""
        for line in text.splitlines():
            try:
                result = msgspec.json.decode(line, type=Result)
            except msgspec.MsgspecError:
                continue
            if result.sources == sources:
                self.results[result.cell] = result
        if text and not text.endswith(b"\n"):
            self._append(b"\n")

    def add(self, result: Result) -> None:
        """Keep a result."""
        with self._lock:
            self.results[result.cell] = result
            self._append(msgspec.json.encode(result) + b"\n")

    def _append(self, line: bytes) -> None:
        with self._path.open("ab") as file:
            file.write(line)
            file.flush()
            os.fsync(file.fileno())


def digest_of_sources(project: Path = PROJECT) -> str:
    """Return what changes with any file that a result depends on."""
    files = [path for top in SOURCES for path in (project / top).rglob("*") if path.is_file()]
    files += [*project.glob("tools/kill*.py"), project / "configs/demo.yaml"]
    digest = hashlib.sha256()
    for path in sorted(path for path in files if "__pycache__" not in path.parts):
        digest.update(f"{path.relative_to(project)}\n".encode())
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()[:16]


def figures(result: Result | None) -> str:
    """Return lost, twice, equal, recovery and residue in a few words."""
    if result is None:
        return "not run"
    words = [] if result.lost is None else [str(result.lost), str(result.twice)]
    if result.equal is not None:
        words.append("equal" if result.equal else "differ")
    if result.recovery_s is not None:
        words.append(f"{result.recovery_s:.2f} s")
    words.append("left: " + ", ".join(result.left) if result.left else "none")
    return ("" if not result.problems else "**FAILED** ") + ", ".join(words)


def markdown(cells: Sequence[Cell], results: Mapping[str, Result], said: Iterable[str]) -> str:
    """Return the table, one row for everybody who is killed and each way.

    Args:
        cells: that make up the matrix.
        results: of them, by name.
        said: sentences that stand above the table: command, date, machine.
    """
    lines = [*said, "", "| who | how | " + " | ".join(COLUMNS.values()) + " |"]
    lines.append("|---|---|" + "---|" * len(COLUMNS))
    there = {(cell.victim, cell.way, cell.moment): cell.name for cell in cells}
    for victim in (*WORKERS, SUPERVISOR):
        for way in dict.fromkeys(cell.way for cell in cells if cell.victim == victim):
            row = [
                figures(results.get(there[victim, way, moment]))
                if (victim, way, moment) in there
                else ""
                for moment in COLUMNS
            ]
            lines.append(f"| `{victim}` | {WAYS.get(way, way)} | " + " | ".join(row) + " |")
    return "\n".join([*lines, "", *_others(cells, results), *_failed(results)])


def _others(cells: Sequence[Cell], results: Mapping[str, Result]) -> Iterator[str]:
    whats = {
        "undisturbed.wrapped": "Stages of the matrix that nobody kills write what plain ones do",
        "control.attempt.middle": "A decoder that depends on the attempt is found out",
    }
    for cell in cells:
        if what := whats.get(cell.name):
            yield f"- {what}: {figures(results.get(cell.name))}"


def _failed(results: Mapping[str, Result]) -> Iterator[str]:
    for name, result in sorted(results.items()):
        if result.problems:
            yield f"- {name} **FAILED**: {'; '.join(result.problems).splitlines()[0]}"


def put_table(path: Path, table: str) -> None:
    """Replace what lies between the two marks.

    Raises:
        ValueError: the marks are not there.
    """
    before, begin, rest = path.read_text().partition(BEGIN)
    _old, end, after = rest.partition(END)
    if not (begin and end):
        raise ValueError(f"{path}: no lines {BEGIN!r} and {END!r}")
    write_atomically(path, f"{before}{BEGIN}\n{table}\n{END}{after}".encode())


def summary(results: Iterable[Result]) -> str:
    """Return "160 of 170 cells as expected; slowest recovery 0.80 s"."""
    found = list(results)
    good = sum(not result.problems for result in found)
    slowest = max((one.recovery_s or 0.0 for one in found), default=0.0)
    return f"{good} of {len(found)} cells as expected; slowest recovery {slowest:.2f} s"
