"""The list of a section's items, which its source writes and its sink reads, in the work_dir.

A sample that cannot be read never reaches the sink but as a number: by this list its record says
which sample that is, like all others.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec

from stages.benchmark.pictures import sync_folder, write_file
from stages.benchmark.samples import Sample

_NAME = "samples.json"


def write_items(work_dir: str, samples: Sequence[Sample]) -> None:
    """Write the list.

    Raises:
        OSError: the disk is full or broken.
    """
    folder = Path(work_dir)
    folder.mkdir(parents=True, exist_ok=True)
    write_file(folder / _NAME, msgspec.json.encode(samples))
    sync_folder(folder)


def read_items(work_dir: str) -> tuple[Sample, ...]:
    """Return the list.

    Raises:
        OSError: there is none.
    """
    return msgspec.json.decode((Path(work_dir) / _NAME).read_bytes(), type=tuple[Sample, ...])
