"""Giving a stored file a second name, where others look for it."""

from __future__ import annotations

import filecmp
import os
import shutil
from pathlib import Path

IMAGES = "images"  # the folder of edits, beside the output


def place(stored: Path, target: Path) -> None:
    """Make `target` the same file as `stored`, or a copy where a file can have but one name.

    Folders are made, and what `target` was is replaced. It is whole whenever it is there.

    Raises:
        OSError: the disk is full or broken.
    """
    if target.exists() and target.samefile(stored):
        return  # renaming one name of a file to another would do nothing, and leave both
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f".{target.name[:200]}.partial")
    partial.unlink(missing_ok=True)
    try:
        os.link(stored, partial)
    except OSError:  # another disk, or one without such names: what copying says counts
        _copy(stored, partial)
    partial.rename(target)


def is_same_file(stored: Path, target: Path) -> bool:
    """Whether `target` is what `place` made of `stored`."""
    return stored.exists() and filecmp.cmp(stored, target, shallow=False)


def _copy(stored: Path, partial: Path) -> None:
    try:
        shutil.copyfile(stored, partial)
        with open(partial, "rb") as file:
            os.fsync(file.fileno())
    except OSError:
        partial.unlink(missing_ok=True)
        raise
