"""What this machine offers to pipelines, and what may stand in their way.

Opens no CUDA context, but where links between GPUs are asked for: those are tried.
"""

from __future__ import annotations

import configparser
import importlib
import importlib.metadata
import os
import re
import resource
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from runtime.commands.brief import count, missing_weights, num_workers, wanted_gpus
from runtime.config import CONFIGS, PROJECT, load_config
from runtime.errors import ConfigError
from runtime.host import ROOT, Gpu, Host, probe_host

if TYPE_CHECKING:  # loads much that is of no use without a GPU
    from runtime.links import Link

_READ = 0  # NVML_P2P_CAPS_INDEX_READ, which nvidia-ml-py has as a tuple that it cannot pass on
_NO_PEERS = {  # of nvmlGpuP2PStatus; 0 is yes
    1: "no: chipset",
    2: "no: GPU",
    3: "no: I/O hub",
    4: "no: switched off",
    5: "no",
}


@dataclass(frozen=True, slots=True)
class Limit:
    """A limit of this process and its workers; None is unlimited."""

    soft: int | None
    hard: int | None


@dataclass(frozen=True, slots=True)
class Driver:
    """What NVML says beyond the GPUs themselves; empty where there is none."""

    version: str = ""  # "580.65.06"
    cuda: str = ""  # the newest CUDA it can run, "13.0"
    peers: tuple[tuple[str, ...], ...] = ()  # [reader][read]: "yes", "no: chipset", "-" for itself


@dataclass(frozen=True, slots=True)
class Advice:
    """What one configuration of configs/ could use here."""

    name: str  # "single_gpu.yaml"
    fits: bool
    text: str  # "needs 1 GPU, this host has none"


@dataclass(frozen=True, slots=True)
class Checkup:
    """Everything that was looked at."""

    host: Host
    driver: Driver
    memfd_error: str  # "" where pools can be made
    locked_memory: Limit  # bytes
    open_files: Limit
    ptrace_scope: int | None  # of Yama; None: there is no Yama
    shm_bytes: int  # of /dev/shm
    shm_free_bytes: int
    versions: dict[str, str]  # of the packages that are needed; "" is missing
    configs: tuple[Advice, ...]
    links: tuple[Link, ...] = ()  # between GPUs, and of each to itself; empty if not measured


def examine(root: Path = ROOT, configs: Path = CONFIGS, *, with_links: bool = False) -> Checkup:
    """Return what there is. Nothing here fails: what cannot be had is said in its place.

    Args:
        root: where /proc, /sys and /dev hang; another folder for tests.
        configs: the folder of configurations.
        with_links: open every GPU, and measure the links between them.
    """
    host = probe_host(root)
    shm = _file_system(root / "dev/shm")
    return Checkup(
        host=host,
        driver=probe_driver(host.gpus),
        memfd_error=memfd_error(),
        locked_memory=_limit(resource.RLIMIT_MEMLOCK),
        open_files=_limit(resource.RLIMIT_NOFILE),
        ptrace_scope=_ptrace_scope(root),
        shm_bytes=shm[0],
        shm_free_bytes=shm[1],
        versions=needed_versions(),
        configs=tuple(advise(path, host) for path in sorted(configs.glob("*.yaml"))),
        links=_links(host.gpus) if with_links and host.gpus else (),
    )


def probe_driver(gpus: Sequence[Gpu]) -> Driver:
    """Return the driver's version, and which of `gpus` reads the memory of which directly."""
    try:
        nvml = importlib.import_module("pynvml")
    except ImportError:  # `Host.gpu_note` says so
        return Driver()
    try:
        nvml.nvmlInit()
    except nvml.NVMLError:  # likewise
        return Driver()
    try:
        cuda = int(nvml.nvmlSystemGetCudaDriverVersion_v2())
        return Driver(
            version=str(nvml.nvmlSystemGetDriverVersion()),
            cuda=f"{cuda // 1000}.{cuda % 1000 // 10}",
            peers=tuple(tuple(_peer(nvml, one, other) for other in gpus) for one in gpus),
        )
    except nvml.NVMLError:  # older than the question
        return Driver()
    finally:
        nvml.nvmlShutdown()


def memfd_error() -> str:
    """Make memory as a pool is made, open it as a worker would, and return why that failed."""
    try:
        descriptor = os.memfd_create("runpipe-doctor", os.MFD_CLOEXEC)
        try:
            os.posix_fallocate(descriptor, 0, 4096)
            os.close(os.open(f"/proc/{os.getpid()}/fd/{descriptor}", os.O_RDONLY | os.O_CLOEXEC))
        finally:
            os.close(descriptor)
    except OSError as error:
        return error.strerror or str(error)
    return ""


def needed_versions() -> dict[str, str]:
    """Return the versions of what setup.cfg asks for; imports none of it."""
    return {name: _version(name) for name in _needed()}


def advise(path: Path, host: Host) -> Advice:
    """Return what the configuration in `path` could use on `host`."""
    try:
        config = load_config(path)
    except ConfigError as error:
        return Advice(path.name, fits=False, text=str(error))
    wanted = max(wanted_gpus(config), default=-1) + 1
    missing = [f"; weights are missing: {weights}" for weights in missing_weights(config)]
    workers = count(num_workers(config), "worker")
    if wanted and not host.gpus:
        text = f"needs {count(wanted, 'GPU')}, this host has none"
    elif wanted > len(host.gpus):
        there = count(len(host.gpus), "GPU")
        text = f"{workers}; asks for {count(wanted, 'GPU')}, this host has {there} to share"
    else:
        text = f"{workers}, {count(wanted, 'GPU')}"
    fits = wanted <= len(host.gpus) and not missing
    return Advice(path.name, fits=fits, text=text + "".join(missing))


def _links(gpus: Sequence[Gpu]) -> tuple[Link, ...]:
    from runtime.links import measure_links

    return measure_links(gpus)


def _peer(nvml: ModuleType, one: Gpu, other: Gpu) -> str:
    if one.uuid == other.uuid:
        return "-"
    try:
        handles = [nvml.nvmlDeviceGetHandleByUUID(gpu.uuid) for gpu in (one, other)]
        status = nvml.nvmlDeviceGetP2PStatus(*handles, _READ)
    except nvml.NVMLError as error:
        return f"unknown: {error}"
    return "yes" if status == 0 else _NO_PEERS.get(int(status), "unknown")


def _limit(which: int) -> Limit:
    soft, hard = (
        None if value == resource.RLIM_INFINITY else value for value in resource.getrlimit(which)
    )
    return Limit(soft, hard)


def _ptrace_scope(root: Path) -> int | None:
    try:
        return int((root / "proc/sys/kernel/yama/ptrace_scope").read_text())
    except (OSError, ValueError):
        return None


def _file_system(path: Path) -> tuple[int, int]:
    try:
        found = os.statvfs(path)
    except OSError:
        return 0, 0
    return found.f_blocks * found.f_frsize, found.f_bavail * found.f_frsize


def _needed() -> list[str]:
    parser = configparser.ConfigParser()
    parser.read(PROJECT / "setup.cfg")
    lines = parser.get("options", "install_requires", fallback="").split("\n")
    return [re.split(r"[^\w.-]", line.strip())[0] for line in lines if line.strip()]


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return ""
