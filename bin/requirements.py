"""What setup.cfg asks for, and which interpreter has it. Standard library only; see environment.py.

It knows versions and interpreters, and nothing of `.venv`.
"""

from __future__ import annotations

import os
import re
import sys
from configparser import ConfigParser

TYPE_CHECKING = False  # as in environment.py
if TYPE_CHECKING:
    from collections.abc import Sequence

SETUP = os.path.join(os.path.dirname(os.path.dirname(os.path.realpath(__file__))), "setup.cfg")
ORDERS = {">=": (0, 1), "<=": (-1, 0), "==": (0,), "!=": (-1, 1), "<": (-1,), ">": (1,)}
MAX_MINOR = 99  # of the names python3.N looked for


def python_requires() -> str:
    """Return the range of Python versions, like ">=3.11,<3.14"."""
    return _setting("options", "python_requires")


def requirements(groups: Sequence[str]) -> list[str]:
    """Return the requirement lines of these groups: "run", and the names of setup.cfg's extras."""
    lines = _setting("options", "install_requires")
    for group in groups:
        if group != "run":
            lines += "\n" + _setting("options.extras_require", group)
    return [line.strip() for line in lines.splitlines() if line.strip()]


def missing(groups: Sequence[str]) -> str:
    """Return the first requirement that the running interpreter does not meet, or ""."""
    from importlib import metadata

    if not admits(python_requires(), running_version()):
        return f"Python {python_requires()}"
    for requirement in requirements(groups):
        name, ranges = re.fullmatch(r"([\w.-]*)(.*)", requirement).groups()
        try:
            version = metadata.version(name)
        except metadata.PackageNotFoundError:
            return requirement
        if not admits(ranges, version or ""):  # None when an installation was cut off
            return requirement
    return ""


def admits(ranges: str, version: str) -> bool:
    """Say whether `version` is in `ranges`, like ">=2.11,<2.14"; what it cannot read it refuses.

    A local version counts as the public one (2.11.0+cu130 is 2.11.0). A pre-release of a bound is
    refused at either end (2.11.0rc1 and 2.14.0a0 are not in the range above).
    """
    release = re.match(r"\d+(\.\d+)*", version)
    if release is None:
        return False
    is_early = not re.fullmatch(r"(\.post\d+)?(\+.*)?", version[release.end() :])
    for part in filter(None, ranges.split(",")):
        bound = re.fullmatch(r"\s*(>=|<=|==|!=|<|>)\s*(\d+(?:\.\d+)*)\s*", part)
        if bound is None:
            return False
        here, there = _numbers(release.group()), _numbers(bound.group(2))
        order = (here > there) - (here < there)
        if order not in ORDERS[bound.group(1)] or (order == 0 and is_early):
            return False
    return True


def other_python() -> str:
    """Return an interpreter on PATH that setup.cfg admits, the newest first, or ""."""
    needed = python_requires()
    for minor in range(MAX_MINOR, -1, -1):
        if not admits(needed, f"3.{minor}"):
            continue
        for folder in os.get_exec_path():
            python = os.path.join(folder, f"python3.{minor}")
            if os.access(python, os.X_OK) and admits(needed, version_of(python)):
                return python
    return ""


def version_of(python: str) -> str:
    """Ask an interpreter for its version; "" when it does not run, like a manager's empty shim."""
    import subprocess

    code = "import sys; print('{}.{}.{}'.format(*sys.version_info[:3]))"
    try:
        answer = subprocess.run([python, "-I", "-c", code], capture_output=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return answer.stdout.decode().strip() if answer.returncode == 0 else ""


def running_version() -> str:
    """Return the version of this interpreter, like "3.11.7"."""
    return "{}.{}.{}".format(*sys.version_info[:3])


def _setting(section: str, option: str) -> str:
    parser = ConfigParser(interpolation=None)
    with open(SETUP, encoding="utf-8") as file:
        parser.read_file(file)
    return parser.get(section, option)


def _numbers(version: str) -> list[int]:
    """Return [2, 11] for "2.11.0": trailing zeros do not count."""
    return [int(number) for number in re.sub(r"(\.0+)+$", "", version).split(".")]
