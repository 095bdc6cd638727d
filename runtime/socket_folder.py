"""The short private folder of a run's sockets, and those that killed supervisors have left."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path

from ipc.channel import MAX_PATH_BYTES
from runtime.errors import ConfigError

LONGEST_NAME = len("/999999.pulse")  # of a socket
_NAME = re.compile(r"rp-(\d+)-.+")  # whose it is


def make_socket_folder() -> Path:
    """Return a new folder, 0700; whoever made it removes it.

    One that a killed supervisor of ours left is removed now: nobody else could.

    Raises:
        ConfigError: its path is too long for sockets.
    """
    folder = Path(tempfile.mkdtemp(prefix=f"rp-{os.getpid()}-"))
    if len(os.fsencode(folder)) + LONGEST_NAME > MAX_PATH_BYTES:
        folder.rmdir()
        raise ConfigError(
            f"{tempfile.gettempdir()}: too long a path for the sockets in it; "
            "set TMPDIR to a shorter one, such as /tmp"
        )
    _remove_left(folder.parent)
    return folder


def _remove_left(parent: Path) -> None:
    for folder in parent.glob("rp-*-*"):
        made_by = _NAME.fullmatch(folder.name)
        with suppress(OSError):  # it is somebody else's, or goes just now
            is_ours = folder.lstat().st_uid == os.getuid() and not folder.is_symlink()
            if made_by and is_ours and not Path(f"/proc/{made_by[1]}").exists():
                shutil.rmtree(folder)
