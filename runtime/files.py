"""Small things about files that more than one part of the runtime needs."""

from __future__ import annotations

import errno
import hashlib
import os
from pathlib import Path

from ipc.records import FileSum


def is_inside(path: str) -> bool:
    """Whether `path` is relative, cannot lead out of its folder by `..`, and is one line."""
    return (
        path.isprintable()
        and bool(path)
        and not path.startswith("/")
        and ".." not in path.split("/")
    )


def file_sum(folder: str, path: str) -> FileSum:
    """Return size and SHA-256 of the file `path` in `folder`.

    Raises:
        OSError: it cannot be read, or a symbolic link leads out of the folder, or it is no file: a
            pipe would be waited for, a device read for ever.
    """
    if not is_inside(path):
        raise OSError(errno.EXDEV, "not in its run directory")
    whole = Path(os.path.realpath(Path(folder) / path))
    if not whole.is_relative_to(os.path.realpath(folder)):
        raise OSError(errno.EXDEV, "not in its run directory")
    if not whole.is_file() and whole.exists():
        raise OSError(errno.EINVAL, "not a regular file")
    with whole.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        return FileSum(path=path, bytes=os.fstat(file.fileno()).st_size, sha256=digest)
