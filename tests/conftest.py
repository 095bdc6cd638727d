import gc
import os
import re
import sys
import tempfile
import threading
from pathlib import Path

import pytest

from runtime.config import parse_config

pytest_plugins = ("tests.gpu_record",)

PROJECT = Path(__file__).resolve().parent.parent

# A folder of our own for sockets, so that another run of the tests beside this one is no leak here;
# short, because socket paths are. Inherited by every process that a test starts.
TEMPORARY = tempfile.TemporaryDirectory(prefix="rpt-")
os.environ["TMPDIR"] = tempfile.tempdir = TEMPORARY.name


def _children():
    """Return our descendants' command lines by pid, also those in sessions of their own."""
    parents, commands = {}, {}
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit():
            continue
        try:
            stat = (folder / "stat").read_text()
            parents[int(folder.name)] = int(stat.rpartition(")")[2].split()[1])
            commands[int(folder.name)] = (folder / "cmdline").read_bytes().replace(b"\0", b" ")
        except OSError:
            continue
    ours, found = {os.getpid()}, set()
    while fresh := {pid for pid, parent in parents.items() if parent in ours} - found:
        found |= fresh
        ours |= fresh
    return {f"{pid} {commands[pid].decode(errors='replace').strip()}" for pid in found}


def _workers():
    """Return workers of this project, whoever their parent is by now: an orphan is a leak too."""
    found = set()
    for folder in Path("/proc").iterdir():
        try:
            command = (folder / "cmdline").read_bytes() if folder.name.isdigit() else b""
        except OSError:
            continue
        if b"runtime.worker" in command and TEMPORARY.name.encode() in command:
            found.add(folder.name)
    return found


def _residue():
    """Return what this process holds, by kind."""
    descriptors = set()
    for fd in Path("/proc/self/fd").iterdir():
        try:
            descriptors.add(f"{fd.name} -> {os.readlink(fd)}")
        except OSError:
            continue  # the listing's own
    maps = Path("/proc/self/maps").read_text()
    return {
        "processes": _children(),
        "workers": _workers(),
        "open files": descriptors,
        "pools": set(re.findall(r"/memfd:\S+@\S+", maps)),
        "threads": {t.name for t in threading.enumerate()},
        "socket folders": {p.name for p in Path(TEMPORARY.name).glob("rp-*")},
    }


def _open_cuda():
    """Let the driver open its files before we look: it keeps them until the process ends."""
    import torch

    if torch.cuda.is_available():
        torch.zeros(1, device="cuda")


@pytest.fixture(autouse=True)
def leaves_nothing_behind(request):
    """Fail any test that leaves a process, a pool, a thread, a folder or an open file."""
    if request.node.get_closest_marker("gpu"):
        _open_cuda()
    before = _residue()
    yield
    if any(after - before[kind] for kind, after in _residue().items()):
        gc.collect()  # what is only waiting for it is no leak; it is slow, so not every time
        for kind, after in _residue().items():
            assert after <= before[kind], f"left {kind} behind: {sorted(after - before[kind])}"


@pytest.fixture(scope="session")
def project():
    return PROJECT


@pytest.fixture
def python():
    return sys.executable


@pytest.fixture
def make_config():
    """Build a configuration of fake stages: `make_config(add={"use": "Add", "with": {...}})`."""

    def make(*, source=None, sink=None, groups=(), run=None, **stages):
        named = {
            "read": {"use": "Numbers"} | (source or {}),
            **(stages or {"add": {"use": "Add"}}),
            "write": {"use": "Lines"} | (sink or {}),
        }
        for stage in named.values():
            if ":" not in stage["use"]:
                stage["use"] = f"tests.fakes:{stage['use']}"
        return parse_config(
            {"pipeline": "fake", "stages": named, "groups": groups, "run": run or {}}
        )

    return make


@pytest.fixture
def numbers(tmp_path):
    """Return a function that makes an input of so many items."""

    def make(count):
        path = tmp_path / f"{count}.txt"
        path.write_text(str(count))
        return path

    return make
