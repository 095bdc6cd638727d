"""The code of stages that are not ours: a resumed run must compute with what it began with.

Nothing is imported for it: a module is looked for as Python does, and its package's files are read.
"""

from __future__ import annotations

import hashlib
import importlib.util
from collections.abc import Iterable, Iterator
from contextlib import suppress
from itertools import islice
from pathlib import Path

from runtime.fingerprint import CODE, PROJECT

MAX_FILES = 1000  # of a package: of a larger one only the module itself is looked at


def stage_code(uses: Iterable[str]) -> dict[str, str]:
    """Return a hash of the code that each stage comes from, by module or package.

    Args:
        uses: "package.module:Class" of each stage.
    """
    modules = sorted({use.partition(":")[0] for use in uses})
    found = {}
    for module in modules:
        name, files = _files(module)
        if files:
            found[name] = _sha256(files)
    return found


def _files(module: str) -> tuple[str, list[Path]]:
    """Return what is hashed, and its files: all of the package, if that is not too large."""
    top, *below = module.split(".")
    spec = None
    with suppress(ImportError, ValueError):  # who is told to build the stage says what is wrong
        spec = importlib.util.find_spec(top)
    if spec is None:
        return top, []
    folders = [Path(folder) for folder in spec.submodule_search_locations or ()]
    if any(folder == PROJECT / name for folder in folders for name in CODE):
        return top, []  # ours
    if not folders:
        return top, [Path(spec.origin)] if spec.origin else []
    package = list(islice(_python_files(folders), MAX_FILES + 1))
    if len(package) <= MAX_FILES:
        return top, sorted(package)
    places = [folder.joinpath(*below) for folder in folders]
    own = [at for place in places for at in (place.with_suffix(".py"), place / "__init__.py")]
    return module, [path for path in own if path.is_file()]


def _python_files(folders: Iterable[Path]) -> Iterator[Path]:
    for folder in folders:
        yield from folder.rglob("*.py")


def _sha256(files: Iterable[Path]) -> str:
    digest = hashlib.sha256()
    for path in files:
        text = path.read_bytes()
        digest.update(f"{path.name}\0{len(text)}\0".encode() + text)
    return digest.hexdigest()
