"""What a stage's constructor takes, read from its source text: importing it would import torch.

Only what the text says beyond doubt is used; None stands for all else, which a run finds out.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator
from importlib.machinery import ModuleSpec, PathFinder
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

from runtime.config import PipelineConfig
from runtime.errors import ConfigError

MAX_HOPS = 8  # from module to module and from class to base, on the way to a constructor


class _Module(NamedTuple):
    name: str
    is_package: bool
    tree: ast.Module


class _Class(NamedTuple):
    module: _Module
    node: ast.ClassDef


class _Sources:
    """Modules as trees, each read once."""

    def __init__(self) -> None:
        self._modules: dict[str, _Module | None] = {}

    def read(self, name: str) -> _Module | None:
        """Return a module's text as a tree; None if it has none, or one that cannot be read.

        Raises:
            LookupError: there is no such module.
        """
        if name not in self._modules:
            self._modules[name] = _read(name)
        return self._modules[name]


def check_stages(config: PipelineConfig) -> None:
    """Refuse a stage that is not there, and keywords that it does not take.

    Raises:
        ConfigError: as a run would, which imports the stages and asks them.
    """
    sources = _Sources()
    taken = {
        name: None if stage.python else _keywords(sources, name, stage.use)  # not to be seen here
        for name, stage in config.stages.items()
    }
    for name, stage in config.stages.items():
        known = taken[name]
        for key in stage.options:
            if known is not None and key not in known:
                hint = _hint(key, known)
                raise ConfigError(f"stages.{name}.with.{key}: unknown to {stage.use}; {hint}")
    if None not in taken.values():
        _check_defaults(config, {key for keywords in taken.values() for key in keywords or ()})


def _check_defaults(config: PipelineConfig, known: set[str]) -> None:
    parts = {"model": config.model, "video": config.video, "samples": config.samples}
    for section, keywords in parts.items():
        for key in keywords:
            if key not in known:
                hint = _hint(key, sorted(known))
                raise ConfigError(f"{section}.{key}: no stage takes it; {hint}")


def _hint(key: str, known: Iterable[str]) -> str:
    from runtime.config_errors import key_hint

    return key_hint(key, known)


def _keywords(sources: _Sources, stage: str, use: str) -> tuple[str, ...] | None:
    module_name, _, class_name = use.partition(":")
    try:
        module = sources.read(module_name)
        found = _find_class(sources, module, class_name, MAX_HOPS) if module else None
        return _of_constructor(sources, found, MAX_HOPS) if found else None
    except LookupError as error:
        raise ConfigError(f"stages.{stage}.use: {error.args[0]}") from error


def _read(name: str) -> _Module | None:
    spec = _spec(name)
    if spec is None:
        raise LookupError(f"there is no module {name}")
    path = Path(spec.origin or "")
    if path.suffix != ".py":
        return None
    try:
        tree = ast.parse(path.read_bytes())
    except (OSError, SyntaxError, ValueError):
        return None
    return _Module(name, is_package=spec.submodule_search_locations is not None, tree=tree)


def _spec(name: str) -> ModuleSpec | None:
    """Find a module without importing the packages around it, as `find_spec` alone would."""
    top, *below = name.split(".")
    try:
        spec, full = find_spec(top), top
    except ValueError:  # "__main__", which has none
        return None
    for part in below:
        if spec is None or spec.submodule_search_locations is None:
            return None
        full += f".{part}"
        spec = PathFinder.find_spec(full, list(spec.submodule_search_locations))
    return spec


def _find_class(sources: _Sources, module: _Module, name: str, max_hops: int) -> _Class | None:
    """Return the class's definition, also behind imports; None if the text leaves it open.

    Raises:
        LookupError: the module has nothing of that name.
    """
    for statement in _statements(module.tree.body):
        match statement:
            case ast.ClassDef() if statement.name == name:
                return _Class(module, statement)
            case ast.ImportFrom() if max_hops:
                imported = {alias.asname or alias.name: alias.name for alias in statement.names}
                if name in imported:
                    source = sources.read(_source_of(statement, module))
                    original = imported[name]
                    return _find_class(sources, source, original, max_hops - 1) if source else None
    if _named_in(module.tree) & {name, "*", "__getattr__", "globals"}:
        return None  # made in a way that only running tells
    raise LookupError(f"{module.name} has no class `{name}`")


def _named_in(tree: ast.Module) -> set[str]:
    names = set()
    for node in ast.walk(tree):
        match node:
            case ast.Name(id=name) | ast.FunctionDef(name=name) | ast.alias(name=name):
                names.add(name)
    return names


def _source_of(statement: ast.ImportFrom, module: _Module) -> str:
    if not statement.level:
        return statement.module or ""
    parts = module.name.split(".")
    package = parts[: len(parts) - statement.level + module.is_package]
    return ".".join([*package, *filter(None, [statement.module])])


def _statements(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    """Yield what importing runs at the top level, inside of `if` and `try` too."""
    for statement in body:
        if isinstance(statement, ast.If | ast.Try):
            handlers = [
                inner for handler in getattr(statement, "handlers", []) for inner in handler.body
            ]
            final = getattr(statement, "finalbody", [])
            yield from _statements([*statement.body, *statement.orelse, *handlers, *final])
        else:
            yield statement


def _of_constructor(sources: _Sources, found: _Class, max_hops: int) -> tuple[str, ...] | None:
    """Return its keywords, from the class itself or from its only base that may have them."""
    methods = {node.name: node for node in found.node.body if isinstance(node, ast.FunctionDef)}
    if found.node.decorator_list or found.node.keywords or "__new__" in methods:
        return None  # a dataclass, for instance
    if "__init__" in methods:
        arguments = methods["__init__"].args
        return tuple(a.arg for a in (*arguments.args[1:], *arguments.kwonlyargs))
    bases = [base.value if isinstance(base, ast.Subscript) else base for base in found.node.bases]
    named = [base.id for base in bases if isinstance(base, ast.Name) and base.id != "Generic"]
    if len(named) != 1 or len(bases) > 2 or not max_hops:
        return None
    base = _find_class(sources, found.module, named[0], max_hops)
    return _of_constructor(sources, base, max_hops - 1) if base else None
