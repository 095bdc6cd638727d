"""What this machine has for us: cores, memory and GPUs, as the container allows and users number.

It opens no CUDA context, so a dry run costs no GPU memory. It must not know any pipeline.
"""

from __future__ import annotations

import importlib
import os
import platform
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType

ROOT = Path("/")
_P2P_READ = 0  # NVML_P2P_CAPS_INDEX_READ, which nvidia-ml-py has as a tuple that it cannot pass on


@dataclass(frozen=True, slots=True)
class Gpu:
    """One GPU. Its UUID is the same for every process of the host, its index is not."""

    index: int  # as users count: among those visible, in the order of nvidia-smi
    uuid: str  # "GPU-8932f937-d72c-4106-c12f-20bd9faed9f6"
    name: str
    total_bytes: int
    free_bytes: int


@dataclass(frozen=True, slots=True)
class Host:
    """What can be used here, at the moment of asking."""

    hostname: str
    kernel: str
    python: str
    cores: int  # that may be used at once
    memory_bytes: int  # that can still be taken before the system or a container limit kills
    gpus: tuple[Gpu, ...] = ()
    gpu_note: str = ""  # why there are no GPUs, or fewer than one would think
    peers: frozenset[tuple[str, str]] = frozenset()  # (reader, read): GPUs, by UUID


@dataclass(frozen=True, slots=True)
class _Mount:
    root: str  # what of the cgroup tree is mounted
    point: str  # where
    is_v2: bool


def probe_host(root: Path = ROOT, environ: Mapping[str, str] = os.environ) -> Host:
    """Return what this process may use.

    Args:
        root: where /proc and /sys hang; another folder for tests.
        environ: its CUDA_VISIBLE_DEVICES is how the user numbers the GPUs.
    """
    gpus, note = probe_gpus()
    seen, hidden = visible_gpus(gpus, environ.get("CUDA_VISIBLE_DEVICES"))
    return Host(
        hostname=platform.node(),
        kernel=platform.release(),
        python=platform.python_version(),
        cores=usable_cores(root, len(os.sched_getaffinity(0))),
        memory_bytes=usable_memory(root),
        gpus=seen,
        gpu_note=note or hidden,
        peers=probe_peers(seen),
    )


def usable_cores(root: Path, num_allowed: int) -> int:
    """Return the smaller of `num_allowed` and the CPU time that the cgroups grant, at least 1."""
    quotas = (_cpu_quota(folder) for folder in cgroup_folders(root, "cpu"))
    return max(1, int(min([num_allowed, *(quota for quota in quotas if quota is not None)])))


def usable_memory(root: Path) -> int:
    """Return the bytes that may still be taken: the smallest of the system's and the cgroups'.

    File cache that can be dropped counts as free, since reading a film or a checkpoint fills the
    cache up to any limit.
    """
    free = [int(_fields(_read(root / "proc/meminfo"))["MemAvailable:"]) * 1024]
    for folder in cgroup_folders(root, "memory"):
        v2 = _left(folder, "memory.max", "memory.current", "inactive_file")
        v1 = _left(folder, "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
        free.extend(left for left in (v2, v1) if left is not None)
    return min(free)


def cgroup_folders(root: Path, controller: str) -> Iterator[Path]:
    """Yield our cgroup of `controller` and all above it, v2 and v1: each may set a limit."""
    for mount in _mounts(_read(root / "proc/self/mountinfo"), controller):
        for line in _read(root / "proc/self/cgroup").splitlines():
            _number, names, path = line.split(":", 2)  # names are empty for v2
            if (not names) if mount.is_v2 else (controller in names.split(",")):
                yield from _upwards(root / mount.point.lstrip("/"), _below(path, mount.root))


def probe_gpus() -> tuple[tuple[Gpu, ...], str]:
    """Return all GPUs of the host in the order of nvidia-smi, and why there are none."""
    try:
        nvml = importlib.import_module("pynvml")
    except ImportError:
        return (), "nvidia-ml-py is not installed"
    try:
        nvml.nvmlInit()
    except nvml.NVMLError as error:
        return (), f"no NVIDIA driver: {error}"
    try:
        gpus, notes = [], []
        for index in range(nvml.nvmlDeviceGetCount()):
            try:
                gpus.append(_gpu(nvml, index))
            except nvml.NVMLError as error:  # fallen off the bus; the others still work
                notes.append(f"GPU {index} does not answer: {error}")
        return tuple(gpus), "; ".join(notes)
    finally:
        nvml.nvmlShutdown()


def probe_peers(gpus: Sequence[Gpu]) -> frozenset[tuple[str, str]]:
    """Return (reader, read), by UUID, of all GPUs that can read each other's memory directly."""
    if len(gpus) < 2:
        return frozenset()
    nvml = importlib.import_module("pynvml")  # it is there: it found the GPUs
    nvml.nvmlInit()
    try:
        pairs = {(one.uuid, other.uuid) for one in gpus for other in gpus if one is not other}
        return frozenset(pair for pair in pairs if _can_read(nvml, *pair))
    finally:
        nvml.nvmlShutdown()


def visible_gpus(gpus: Sequence[Gpu], visible: str | None) -> tuple[tuple[Gpu, ...], str]:
    """Return the GPUs that CUDA_VISIBLE_DEVICES = `visible` leaves, numbered anew, and a note.

    As CUDA reads it: None hides nothing, "" everything; ordinals or starts of UUIDs; the first
    one that does not exist hides all behind it; one named twice hides everything.
    """
    if visible is None:
        return tuple(gpus), ""
    chosen: list[Gpu] = []
    for name in (part.strip() for part in visible.split(",")):
        matches = [gpu for gpu in gpus if _is_called(gpu, name)]
        if len(matches) != 1:
            break
        chosen.extend(matches)
    if len({gpu.uuid for gpu in chosen}) < len(chosen):
        chosen = []
    numbered = tuple(replace(gpu, index=index) for index, gpu in enumerate(chosen))
    hidden = len(gpus) - len(numbered)
    note = f"CUDA_VISIBLE_DEVICES={visible} hides {hidden} of {len(gpus)} GPUs" if hidden else ""
    return numbered, note


def _cpu_quota(folder: Path) -> float | None:
    v1 = f"{_read(folder / 'cpu.cfs_quota_us')} {_read(folder / 'cpu.cfs_period_us')}"
    quota, _, period = (_read(folder / "cpu.max") or v1).partition(" ")
    if not quota.isdigit() or not period.isdigit() or int(period) == 0:
        return None  # "max" in v2, -1 in v1
    return int(quota) / int(period)


def _left(folder: Path, limit_name: str, used_name: str, cache_name: str) -> int | None:
    limit, used = _read(folder / limit_name), _read(folder / used_name)
    if not limit.isdigit() or not used.isdigit():
        return None  # "max", or not there: the root of a hierarchy has no limit
    cache = int(_fields(_read(folder / "memory.stat")).get(cache_name, "0"))
    return max(0, int(limit) - int(used) + cache)


def _mounts(mountinfo: str, controller: str) -> Iterator[_Mount]:
    for line in mountinfo.splitlines():
        before, _, after = line.partition(" - ")
        kind, _source, options = after.split(" ", 2)
        root, point = (part.replace("\\040", " ") for part in before.split(" ")[3:5])
        if kind == "cgroup2":
            yield _Mount(root, point, is_v2=True)
        elif kind == "cgroup" and controller in options.split(","):
            yield _Mount(root, point, is_v2=False)


def _below(path: str, mounted: str) -> Path:
    """Return `path` of the cgroup tree as seen from what is `mounted` of it."""
    if Path(path).is_relative_to(mounted) and ".." not in path:
        return Path(path).relative_to(mounted)
    return Path()  # outside of what a container sees; its own root is the nearest


def _upwards(top: Path, below: Path) -> Iterator[Path]:
    yield top / below
    yield from (top / parent for parent in below.parents)


def _gpu(nvml: ModuleType, index: int) -> Gpu:
    handle = nvml.nvmlDeviceGetHandleByIndex(index)
    memory = nvml.nvmlDeviceGetMemoryInfo(handle)
    return Gpu(
        index=index,
        uuid=nvml.nvmlDeviceGetUUID(handle),
        name=nvml.nvmlDeviceGetName(handle),
        total_bytes=int(memory.total),
        free_bytes=int(memory.free),
    )


def _can_read(nvml: ModuleType, reader: str, read: str) -> bool:
    try:
        handles = [nvml.nvmlDeviceGetHandleByUUID(uuid) for uuid in (reader, read)]
        return int(nvml.nvmlDeviceGetP2PStatus(*handles, _P2P_READ)) == 0
    except nvml.NVMLError:
        return False


def _is_called(gpu: Gpu, name: str) -> bool:
    if name.startswith("GPU-"):
        return gpu.uuid.startswith(name)
    return name.isdigit() and int(name) == gpu.index


def _fields(text: str) -> dict[str, str]:
    return {words[0]: words[1] for words in map(str.split, text.splitlines()) if len(words) > 1}


def _read(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""
