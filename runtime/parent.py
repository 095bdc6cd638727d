"""What ties a process to the one that started it."""

from __future__ import annotations

import ctypes
import os
import signal

PR_SET_PDEATHSIG = 1
PR_SET_PTRACER = 0x59616D61


def die_with(parent_pid: int) -> None:
    """Be killed when the thread that started us ends; only that ends a stopped process too.

    And let it, and what it starts, look at our stacks where others of the same user may not.

    Raises:
        SystemExit: it has ended already.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    libc.prctl(PR_SET_PTRACER, parent_pid)
    if os.getppid() != parent_pid:
        raise SystemExit("whoever started this process is gone")
