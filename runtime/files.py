"""Small things about files that more than one part of the runtime needs."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from ipc.records import FileSum


def file_sum(folder: str, path: str) -> FileSum:
    """Return size and SHA-256 of the file `path` in `folder`."""
    with (Path(folder) / path).open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        return FileSum(path=path, bytes=os.fstat(file.fileno()).st_size, sha256=digest)
