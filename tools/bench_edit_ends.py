"""The sinks of a run that is measured: those of the product, which also look at the clock.

They import no model library, as the ones that they are made of.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from stages.base import Item
from stages.benchmark.facts import GroupFacts, GroupMeta, SampleFacts, SampleMeta
from stages.benchmark.pictures import Flat
from stages.benchmark.save import SaveEdits
from stages.benchmark.scores import SaveScores

NEVER = -1  # of an item that is traced
STAMPS = "stamps.jsonl"  # in a section's folder; all processes append to it


def stamp(work_dir: str, what: str, item: int) -> None:
    """Write down that `what` happened to `item` now, by the clock that all processes share."""
    line = json.dumps({"what": what, "item": item, "at_s": time.monotonic()}) + "\n"
    file = os.open(Path(work_dir) / STAMPS, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    try:
        os.write(file, line.encode())
    finally:
        os.close(file)


def stamps(work_dir: Path, what: str) -> list[float]:
    """Return when `what` happened, in order of time; [] if it never did."""
    path = work_dir / STAMPS
    if not path.exists():
        return []
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    return sorted(row["at_s"] for row in rows if row["what"] == what)


class TimedSave(SaveEdits):
    """`SaveEdits`, which stamps an edit when it arrives: before it is encoded."""

    def open(self, facts: SampleFacts) -> None:
        """Make ready for a job."""
        super().open(facts)
        self._work_dir = facts.job.work_dir

    def write(
        self, item: Item[SampleMeta], inputs: Mapping[str, Flat], meta: SampleMeta | None
    ) -> int:
        """Look at the clock, then take the edit."""
        stamp(self._work_dir, "failed" if item.failed else "edited", item.index)
        return super().write(item, inputs, meta)


class TimedScores(SaveScores):
    """`SaveScores`, likewise, with a group that has been judged."""

    def open(self, facts: GroupFacts) -> None:
        """Make ready for a job."""
        super().open(facts)
        self._work_dir = facts.job.work_dir

    def write(
        self, item: Item[GroupMeta], inputs: Mapping[str, Any], meta: GroupMeta | None
    ) -> int:
        """Look at the clock, then take the group."""
        stamp(self._work_dir, "failed" if item.failed else "judged", item.index)
        return super().write(item, inputs, meta)
