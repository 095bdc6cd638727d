"""What the bytes of a result depend on, so that a resumed run knows whether it continues the same.

Everything comes in as plain values: this must not know what a pipeline is.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
import platform
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

PROJECT = Path(__file__).resolve().parent.parent
CODE = ("ipc", "stages", "runtime")  # folders whose *.py can change a result
PACKAGES = ("av", "msgspec", "numpy", "pydantic", "pyzmq", "runpipe", "torch")
CPU_INFO = Path("/proc/cpuinfo")

_END_BYTES = 2**20  # of a file's start and end that are read


def basis(
    *,
    config_text: str,
    settings: Mapping[str, object],
    source: str,
    output: str,
    inputs: Iterable[str | Path],
    stages: Mapping[str, str],
    seed: int,
) -> dict[str, object]:
    """Return what is known of the results before anything starts, as JSON values.

    Args:
        config_text: as `dump_config` returns it.
        settings: the same as `settings_of` returns it, so that a change can be named.
        source: the job's input.
        output: of the job.
        inputs: files that are read: the source's input, weights; others ("random:0") by name.
        stages: hashes of the code of stages that are not ours, by module or package.
        seed: of the run.
    """
    return {
        "config": dict(settings),
        "config_sha256": text_sha256(config_text),
        "input": source,
        "output": output,
        "inputs": {str(path): file_identity(path) for path in inputs},
        "code_sha256": code_sha256(PROJECT),
        "stage_code": dict(stages),
        "seed": seed,
        "versions": versions(),
        "machine": platform.machine(),
        "cpu": cpu_name(),
    }


def fingerprint(
    known: Mapping[str, object],
    *,
    threads: Mapping[str, int],
    devices: Mapping[str, str],
    shapes: Mapping[str, Sequence[int]],
    work: Mapping[str, object],
) -> dict[str, object]:
    """Return all that the results depend on, as JSON values.

    Args:
        known: of before, see `basis`.
        threads: worker -> threads, since sums depend on how they are split.
        devices: worker -> "cpu", or its GPU's name.
        shapes: "stage.tensor" -> shape.
        work: what the journal's item numbers mean: {"num_items": 30, "item_size": 2, ...}.
    """
    return {
        **known,
        "threads": dict(threads),
        "devices": dict(devices),
        "shapes": {name: list(shape) for name, shape in shapes.items()},
        "work": dict(work),
    }


def fingerprint_changes(before: Mapping[str, object], now: Mapping[str, object]) -> list[str]:
    """Return "versions.torch: 2.11.0 -> 2.13.0" for everything that differs, sorted."""
    return [f"{name}: {old} -> {new}" for name, (old, new) in differences(before, now).items()]


def differences(
    before: Mapping[str, object], now: Mapping[str, object]
) -> dict[str, tuple[object, object]]:
    """Return {"versions.torch": ("2.11.0", "2.13.0")} for everything that differs, sorted."""
    old, new = dict(_flat(before)), dict(_flat(now))
    return {
        name: (old.get(name, "nothing"), new.get(name, "nothing"))
        for name in sorted(old.keys() | new.keys())
        if old.get(name) != new.get(name)
    }


def file_identity(path: str | Path) -> dict[str, object]:
    """Return size, age and a hash of both ends of a file: a film is too large to be read twice."""
    try:
        with Path(path).open("rb") as file:
            stat = os.fstat(file.fileno())
            digest = hashlib.sha256(file.read(_END_BYTES))
            file.seek(max(0, stat.st_size - _END_BYTES))
            digest.update(file.read(_END_BYTES))
    except (FileNotFoundError, IsADirectoryError):
        return {}  # "random:0", or a name of a hub: known by its name alone
    return {
        "path": str(Path(path).absolute()),
        "bytes": stat.st_size,
        "mtime_ns": stat.st_mtime_ns,
        "ends_sha256": digest.hexdigest(),
    }


def code_sha256(project: Path) -> str:
    """Return a hash of the names and the text of all our own modules."""
    digest = hashlib.sha256()
    for path in sorted(path for folder in CODE for path in (project / folder).rglob("*.py")):
        text = path.read_bytes()
        digest.update(f"{path.relative_to(project)}\0{len(text)}\0".encode() + text)
    return digest.hexdigest()


def cpu_name() -> str:
    """Return what the processor calls itself: its vector units decide how sums are rounded."""
    with suppress(OSError):
        for line in CPU_INFO.read_text().splitlines():
            name, _, value = line.partition(":")
            if name.strip() == "model name":
                return value.strip()
    return ""


def text_sha256(text: str) -> str:
    """Return a hash of `text`."""
    return hashlib.sha256(text.encode()).hexdigest()


def versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that results depend on; imports none."""
    return {"python": platform.python_version()} | {
        name: version for name in PACKAGES if (version := _version(name))
    }


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return ""


def _flat(value: Mapping[str, object], prefix: str = "") -> Iterable[tuple[str, object]]:
    for name, part in value.items():
        if isinstance(part, Mapping):
            yield from _flat(part, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", part
