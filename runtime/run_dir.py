"""The folder of one run: made, and kept to that run alone."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

from runtime.errors import ConfigError

PRIVATE = 0o700
MAX_OF_ONE_SECOND = 1000  # runs that start in one folder


def make_run_dir(wanted: Path | None, *, pipeline: str) -> tuple[Path, bool]:
    """Return the run directory, and whether it was made just now.

    Args:
        wanted: may exist; None: a new folder in `runs/`, named by time and `pipeline`.
        pipeline: "interpolate".

    Raises:
        ConfigError: it cannot be made.
    """
    if wanted is not None:
        return wanted.absolute(), _make(wanted)
    stamp = datetime.now().astimezone().strftime("%Y%m%d-%H%M%S")
    base = Path.cwd() / "runs" / f"{stamp}-{pipeline}"
    names = (base.with_name(f"{base.name}-{number}") for number in range(2, MAX_OF_ONE_SECOND))
    # not by `exists`: runs that a script starts together find the same names free
    return next(path for path in (base, *names) if _make(path)), True


def _make(path: Path) -> bool:
    try:
        for parent in reversed(path.parents):
            if not parent.exists():
                parent.mkdir(mode=PRIVATE, exist_ok=True)
        path.mkdir(mode=PRIVATE)
    except OSError as error:
        if path.is_dir():
            return False
        raise ConfigError(f"{path}: cannot make this run directory: {error.strerror}") from error
    return True


@contextmanager
def kept_to_ourselves(folder: Path) -> Iterator[None]:
    """Keep other runs out of `folder` until the block ends, or this process does.

    Raises:
        ConfigError: another run is using it.
    """
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ConfigError(f"{folder}: another run is using this directory") from error
        yield
    finally:
        os.close(descriptor)
