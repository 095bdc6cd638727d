"""Tries hostile cases in a process of its own, which a defect may hang, kill or bloat.

python -m tests.hostile.child SURFACE SEED        one case, told on stdout
"""

from __future__ import annotations

import faulthandler
import importlib
import os
import resource
import sys
import tempfile
import time
import traceback
from pathlib import Path
from random import Random

# What would be code from data at work, or a way to it; no surface has use for any of these.
FORBIDDEN = {
    "os.system",
    "os.exec",
    "os.fork",
    "os.posix_spawn",
    "os.kill",
    "pty.spawn",
    "socket.connect",
    "subprocess.Popen",
}
MAX_CHARS = 4000  # of a defect
CPU_S = 15.0  # that one case may take


def forbid(seen: list[str], folder: Path) -> None:
    """Have the interpreter tell of every forbidden act, and of files opened for writing outside."""
    inside = str(folder)

    def hear(event: str, arguments: tuple[object, ...]) -> None:
        if event in FORBIDDEN:
            seen.append(f"{event} {arguments!r:.200}")
        elif event == "open" and isinstance(arguments[0], str):
            writes = isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR)
            if writes and not arguments[0].startswith((inside, "/dev/", "/proc/")):
                seen.append(f"wrote {arguments[0]!r:.200}")

    sys.addaudithook(hear)


def limit_memory(more_bytes: int) -> None:
    """Have the kernel refuse what a case must not need."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + more_bytes
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def defect_of(surface, seed: int, acts: list[str]) -> str:
    """Try one case; return what is wrong, or nothing."""
    began = time.process_time()
    try:
        case = surface.make(Random(seed))
        surface.judge(case)
    except BaseException:  # noqa: BLE001 - whatever comes out of it is what we look for
        return traceback.format_exc()[-MAX_CHARS:]
    if acts:
        return f"did what no data may have it do: {acts}"
    if (took := time.process_time() - began) > CPU_S:
        return f"took {took:.1f} s of a core"
    return ""


def main() -> None:
    faulthandler.enable()
    if len(sys.argv) == 3:
        with tempfile.TemporaryDirectory(prefix="rp-") as folder:
            acts: list[str] = []
            surface = importlib.import_module(f"tests.hostile.{sys.argv[1]}").Surface(Path(folder))
            surface.judge(surface.make(Random(0)))
            forbid(acts, Path(folder))
            print(defect_of(surface, int(sys.argv[2]), acts) or "well")  # noqa: T201
        return
    name, first, end, folder, told = sys.argv[1:]
    surface = importlib.import_module(f"tests.hostile.{name}").Surface(Path(folder))
    warm, acts = defect_of(surface, 0, []), []  # what is imported late is there now
    limit_memory(surface.max_bytes)
    forbid(acts, Path(folder))
    for seed in range(int(first), int(end)):
        os.write(int(told), b"%d\n" % seed)
        if defect := defect_of(surface, seed, acts):
            os.write(int(told), b"!" + defect.replace("\n", "\1").encode(errors="replace") + b"\n")
        acts.clear()
    assert not warm, warm


if __name__ == "__main__":
    main()
