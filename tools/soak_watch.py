"""What the processes of a run hold, read from /proc while it goes on."""

from __future__ import annotations

import os
import re
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

SUPERVISOR, ALL = "supervisor", "all"
_SMAPS = re.compile(rb"^(Rss|Pss_Anon):\s+(\d+) kB$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Held:
    """What one process holds, or all of them."""

    rss_bytes: int
    own_bytes: int  # not of files: their pages are shared with whatever else runs on the host
    pools: dict[int, int]  # memory made to be shared, by inode; all of it is there from the start
    descriptors: int
    regions: int  # mapped ones
    threads: int

    @property
    def pools_bytes(self) -> int:
        """Each pool once, whoever maps it."""
        return sum(self.pools.values())

    @property
    def nbytes(self) -> int:
        """All that must not grow."""
        return self.own_bytes + self.pools_bytes

    def __add__(self, other: Held) -> Held:
        """Return what both hold."""
        return Held(
            self.rss_bytes + other.rss_bytes,
            self.own_bytes + other.own_bytes,
            self.pools | other.pools,
            self.descriptors + other.descriptors,
            self.regions + other.regions,
            self.threads + other.threads,
        )


NOTHING = Held(0, 0, {}, 0, 0, 0)


@dataclass(frozen=True, slots=True)
class Sample:
    """All processes at one moment."""

    items: int  # durable by then
    at_s: float
    held: dict[str, Held]  # by worker; "supervisor", "all"
    pids: dict[str, int]


def workers_of(supervisor: int) -> dict[str, int]:
    """Return the supervisor's workers by name, as they are now."""
    found = {}
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit():
            continue
        with suppress(OSError):
            stat = (folder / "stat").read_text().rpartition(")")[2].split()
            words = (folder / "cmdline").read_bytes().split(b"\0")
            if int(stat[1]) == supervisor and stat[0] != "Z" and b"--name" in words:
                found[words[words.index(b"--name") + 1].decode()] = int(folder.name)
    return found


def held_by(pid: int) -> Held:
    """Return what a process holds.

    Raises:
        OSError: it has ended.
    """
    folder = Path("/proc") / str(pid)
    memory = {name: int(kib) * 1024 for name, kib in _SMAPS.findall(_read(folder, "smaps_rollup"))}
    descriptors = list((folder / "fd").iterdir())
    return Held(
        rss_bytes=memory[b"Rss"],
        own_bytes=memory[b"Pss_Anon"],
        pools=dict(filter(None, map(_pool, descriptors))),
        descriptors=len(descriptors),
        regions=_read(folder, "maps").count(b"\n"),
        threads=sum(1 for _ in (folder / "task").iterdir()),
    )


def _pool(descriptor: Path) -> tuple[int, int] | None:
    """Return inode and size of a pool; a mapped one has a descriptor too."""
    with suppress(OSError):  # it was closed meanwhile
        if os.readlink(descriptor).startswith("/memfd:"):
            found = descriptor.stat()
            return found.st_ino, found.st_blocks * 512
    return None


def take_sample(supervisor: int, *, items: int, at_s: float, num_workers: int) -> Sample | None:
    """Look at all processes; None if one is not there, as after a kill or at the end."""
    pids = {SUPERVISOR: supervisor, **workers_of(supervisor)}
    if len(pids) != num_workers + 1:
        return None
    try:
        held = {name: held_by(pid) for name, pid in pids.items()}
    except (OSError, KeyError):  # the memory of a process that ends is empty
        return None
    total = sum(held.values(), start=NOTHING)
    return Sample(items, at_s, {**held, ALL: total}, pids)


def _read(folder: Path, name: str) -> bytes:
    return (folder / name).read_bytes()
