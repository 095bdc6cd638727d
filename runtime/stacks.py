"""What the threads of processes are doing, by py-spy: for a worker that no longer gets on."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

from runtime.errors import MAX_TRACEBACK_CHARS, WorkerHung, bounded
from runtime.fleet import Fleet
from runtime.report import Hang

DUMP_S = 3.0  # for all of them together; they are looked at without being stopped


def examine(hung: WorkerHung, fleet: Fleet) -> Hang:
    """Return what the report says of a worker that hangs, with what everybody is doing."""
    beat = fleet.beats.get(hung.worker)
    return Hang(
        worker=hung.worker,
        what=hung.what,
        waited_s=hung.waited_s,
        item=beat.item if beat and beat.item >= 0 else None,
        stacks=dump_stacks(fleet.pids()),
    )


def dump_stacks(pids: Mapping[str, int]) -> dict[str, str]:
    """Return the stacks of each process, by worker; where they cannot be had, why.

    Args:
        pids: worker -> process.
    """
    program = _find()
    if program is None:
        return dict.fromkeys(pids, "py-spy is not installed")
    try:
        running = {name: _start(program, pid) for name, pid in pids.items()}
    except OSError as error:  # no processes left, for one; the run goes on without
        return dict.fromkeys(pids, f"py-spy cannot be started: {error}")
    deadline = time.monotonic() + DUMP_S
    return {name: _end(dump, deadline) for name, dump in running.items()}


def _find() -> str | None:
    beside = Path(sys.executable).parent / "py-spy"
    return str(beside) if beside.exists() else shutil.which("py-spy")


def _start(program: str, pid: int) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [program, "dump", "--nonblocking", "--pid", str(pid)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )


def _end(dump: subprocess.Popen[bytes], deadline: float) -> str:
    try:
        text, _none = dump.communicate(timeout=max(0.0, deadline - time.monotonic()))
    except subprocess.TimeoutExpired:
        dump.kill()
        return f"py-spy took more than {DUMP_S:g} s"
    finally:
        if dump.stdout is not None:
            dump.stdout.close()
    return bounded(text.decode(errors="replace").strip(), MAX_TRACEBACK_CHARS)
