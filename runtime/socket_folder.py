"""The short private folder of a run's sockets, and those that killed supervisors have left."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path

from ipc.channel import MAX_PATH_BYTES
from runtime.errors import ConfigError

LONGEST_NAME = len("/999999.pulse")  # of a socket
_PREFIX, _LOCK = "rp-", "lock"


class SocketFolder:
    """Owns the folder until `close`; a lock in it says that its owner lives, wherever that is."""

    def __init__(self) -> None:
        """Make it, 0700; remove what killed owners of ours have left beside it.

        Raises:
            ConfigError: its path is too long for sockets.
        """
        self._make()
        while not (self.path / _LOCK).exists():  # others found it before it was locked: left, then
            os.close(self._lock)
            self._make()
        remove_left_folders()

    def _make(self) -> None:
        self.path = Path(tempfile.mkdtemp(prefix=_PREFIX))
        if len(os.fsencode(self.path)) + LONGEST_NAME > MAX_PATH_BYTES:
            self.path.rmdir()
            raise ConfigError(
                f"{tempfile.gettempdir()}: too long a path for the sockets in it; "
                "set TMPDIR to a shorter one, such as /tmp"
            )
        self._lock = os.open(self.path / _LOCK, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        fcntl.flock(self._lock, fcntl.LOCK_EX)

    def close(self) -> None:
        """Remove it."""
        shutil.rmtree(self.path, ignore_errors=True)
        os.close(self._lock)


def remove_left_folders() -> None:
    """Remove what killed owners of ours have left."""
    for folder in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        with suppress(OSError):  # it is somebody else's, has no lock, is in use, or goes now
            _remove_if_left(folder)


def _remove_if_left(folder: Path) -> None:
    if folder.lstat().st_uid != os.getuid() or folder.is_symlink():
        return
    lock = os.open(folder / _LOCK, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(folder)
    finally:
        os.close(lock)
