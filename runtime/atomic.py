"""Files that are there whole or not at all, also after a power cut."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO


def write_atomically(path: Path, data: bytes) -> None:
    """Write `data` under the name `path`, which keeps its old content until all is on the disk.

    Raises:
        OSError: the disk is full, or the folder cannot be written; nothing is left behind.
    """
    with atomic_file(path) as file:
        file.write(data)


@contextmanager
def atomic_file(path: Path, *, sync: bool = True) -> Iterator[BinaryIO]:
    """Yield a file to write; it gets the name `path` when the block ends, and goes if that fails.

    Args:
        path: of the file.
        sync: wait for the disk; else a power cut may empty or lose it.

    Raises:
        OSError: likewise.
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with open(partial, "wb", opener=_not_for_others) as file:
            yield file
            file.flush()
            if sync:
                os.fsync(file.fileno())
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    if sync:
        sync_folder(path.parent)


def _not_for_others(path: str, flags: int) -> int:
    """Open a file that others may not write, whatever the umask is."""
    return os.open(path, flags, 0o644)


def sync_folder(folder: Path) -> None:
    """Make names that were added to or changed in `folder` outlive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
