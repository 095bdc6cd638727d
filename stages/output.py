"""Giving an output its final name so that a later run can tell that it has it.

A process may be killed between the renaming and whatever it wanted to write down of it. So a note
is written before: what the file is, by signs that a renaming does not change.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

NOTE = "output.json"


def publish(temporary: Path, output: Path, work_dir: Path) -> None:
    """Sync `temporary` and rename it to `output`, in the same folder.

    Args:
        temporary: whole and closed.
        output: is replaced, if it exists.
        work_dir: gets the note.

    Raises:
        OSError: the disk is full or broken; `output` is as it was.
    """
    _sync(temporary)
    note(temporary, output, work_dir)
    temporary.rename(output)
    _sync(output.parent)


def note(written: Path, output: Path, work_dir: Path) -> None:
    """Write down in `work_dir` that the file `written` is, or is about to become, `output`.

    Raises:
        OSError: it cannot be written.
    """
    partial = work_dir / f".{NOTE}.{os.getpid()}.partial"
    # whatever the umask is: nobody else may say what the output is
    descriptor = os.open(partial, os.O_CREAT | os.O_TRUNC | os.O_WRONLY, 0o644)
    with os.fdopen(descriptor, "w") as file:
        file.write(json.dumps(_signs(written, output), indent=2) + "\n")
    _sync(partial)
    partial.rename(work_dir / NOTE)
    _sync(work_dir)


def is_published(output: Path, work_dir: Path) -> bool:
    """Whether `output` is there, and is what was noted in `work_dir`, untouched since."""
    try:
        found: object = json.loads((work_dir / NOTE).read_bytes())
        return found == _signs(output, output)
    except (OSError, ValueError):  # none, or a damaged one: nothing is believed of it
        return False


def _signs(written: Path, output: Path) -> dict[str, object]:
    status = written.stat()
    return {
        "output": str(output),
        "bytes": status.st_size,
        "mtime_ns": status.st_mtime_ns,
        "inode": status.st_ino,
    }


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
