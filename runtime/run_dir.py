"""The folder of one run: made, and kept to that run alone."""

from __future__ import annotations

import fcntl
import json
import os
import select
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

from runtime.errors import ConfigError

PRIVATE = 0o700
MAX_OF_ONE_SECOND = 1000  # runs that start in one folder
WORKERS = "workers.json"  # the process of each worker
ORPHANS_S = 10.0  # how long a worker may outlive its supervisor; two seconds are its own rule


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


def wait_for_orphans(folder: Path) -> None:
    """Wait until the workers of a run that was killed are gone: one might still write.

    Raises:
        ConfigError: one does not end.
    """
    deadline = time.monotonic() + ORPHANS_S
    for name, pid in _workers(folder / WORKERS).items():
        try:
            descriptor = os.pidfd_open(pid)
        except OSError:
            continue  # long gone
        try:
            ended = select.poll()
            ended.register(descriptor, select.POLLIN)
            left_ms = max(0, round((deadline - time.monotonic()) * 1000))
            if _is_orphan(pid) and not ended.poll(left_ms):
                raise ConfigError(
                    f"{folder}: worker {name} of the earlier run, process {pid}, is still there; "
                    "end it first"
                )
        finally:
            os.close(descriptor)


def _workers(path: Path) -> dict[str, int]:
    try:
        found = json.loads(path.read_bytes())
        return {str(name): int(pid) for name, pid in found.items()}
    except (OSError, ValueError, AttributeError, TypeError):
        return {}  # it had not come so far, or somebody has damaged it


def _is_orphan(pid: int) -> bool:
    """Whether it is a worker whose supervisor is gone; a pid may be another process's by now."""
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        parent = int(words[words.index(b"--parent-pid") + 1])
    except (OSError, ValueError):
        return False
    return b"runtime.worker" in words and not Path(f"/proc/{parent}").exists()
