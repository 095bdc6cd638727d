"""YAML as people write it: strict reading, `KEY=VALUE` overrides, errors of one line.

It must not know what the keys mean; that is config.py.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from typing import ClassVar

import yaml

from runtime.errors import ConfigError

MAX_VALUES = 20_000  # with those that aliases repeat: ten lines can make as many as one likes
MAX_NUMBER_CHARS = 100  # YAML 1.1 has numbers of any length, some of which take hours to read
MIN_INTEGER, MAX_INTEGER = -(2**63), 2**64 - 1  # what a message holds
_TAG = "tag:yaml.org,2002:"
_MERGE_TAG = f"{_TAG}merge"
_NUMBERS = (f"{_TAG}int", f"{_TAG}float")
_TOO_MANY = f"its aliases (`*name`) make more than {MAX_VALUES} values"
# "2024-13-41" is a date to YAML; `!!int ''`, `!!bool x` and `!!timestamp x` are taken apart unseen.
_BROKEN_VALUES = (ValueError, OverflowError, LookupError, AttributeError)
# What the parser says of the slips that people make, in words that tell the way out.
_PLAIN = {
    r"found character '\t'": "a tab; YAML is indented with spaces",
    "found character": "text that starts with a sign of YAML's own; put it in quotes",
    "expected <block end>": "the indentation does not fit the lines above",
    "mapping values are not allowed": (
        "a `:` where none can be; put text that has one in quotes, or mend the indentation"
    ),
    "could not find expected ':'": "a key without `: ` behind it",
    "expected a single document": "a second document; leave out the line `---`",
    "found undefined alias": "an alias (`*name`) of nothing; put text that starts with * in quotes",
}


class _Loader(yaml.SafeLoader):
    """Knows plain values alone, no more of them than a configuration can have.

    Refuses a key written twice, of which YAML would silently keep the last.
    """

    # Sets, ordered mappings and bytes would come out as what no configuration holds.
    yaml_constructors: ClassVar = {
        tag: constructor
        for tag, constructor in yaml.SafeLoader.yaml_constructors.items()
        if tag not in {f"{_TAG}{name}" for name in ("binary", "omap", "pairs", "set")}
    }

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._num_nodes = self._num_merged = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        self._num_nodes += 1
        if self._num_nodes > MAX_VALUES:
            raise ConfigError(f"has more than {MAX_VALUES} values")
        return super().compose_node(parent, index)

    def compose_scalar_node(self, anchor: object) -> yaml.ScalarNode:
        node = super().compose_scalar_node(anchor)  # type: ignore[arg-type]  # stub: not a dict
        if node.tag in _NUMBERS and len(node.value) > MAX_NUMBER_CHARS:
            raise yaml.constructor.ConstructorError(
                None, None, f"a number of {len(node.value)} characters", node.start_mark
            )
        try:
            node.value.encode()
        except UnicodeEncodeError as error:  # "\\ud800" is half a character, and cannot be sent
            raise yaml.constructor.ConstructorError(
                None, None, "text with half a character", node.start_mark
            ) from error
        return node

    def compose_mapping_node(self, anchor: object) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)  # type: ignore[arg-type]  # stub: not a dict
        seen: set[str] = set()
        for key, _value in node.value:
            if not isinstance(key, yaml.ScalarNode) or key.tag == _MERGE_TAG:
                continue
            if key.value in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"key `{key.value}` is written twice", key.start_mark
                )
            seen.add(key.value)
        return node

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        """Take in what `<<` names; what each of these takes in is counted first."""
        merged = [value for key, value in node.value if key.tag == _MERGE_TAG]
        parts = [
            part
            for value in merged
            for part in (value.value if isinstance(value, yaml.SequenceNode) else [value])
            if isinstance(part, yaml.MappingNode)
        ]
        for part in dict.fromkeys(parts):
            self.flatten_mapping(part)
        self._num_merged += len(parts) + sum(len(part.value) for part in parts)
        if self._num_merged > MAX_VALUES:
            raise ConfigError(_TOO_MANY)
        super().flatten_mapping(node)


def parse_yaml(text: str) -> object:
    """Return what one YAML document says; None for an empty one.

    Raises:
        ConfigError: broken YAML, with line and column; a duplicate key; aliases without end.
    """
    try:
        loader = _Loader(text)
        try:
            value: object = loader.get_single_data()
        finally:
            loader.dispose()
    except yaml.MarkedYAMLError as error:
        raise ConfigError(_where(error) + _what(error)) from error
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise ConfigError(
            f"line {line}: the character #x{error.character:04x} is not allowed"
        ) from error
    except ConfigError:  # the loader's own, and a ValueError
        raise
    except _BROKEN_VALUES as error:
        raise ConfigError(f"broken value: {error}") from error
    except RecursionError as error:
        raise ConfigError("nested too deeply") from error
    _expanded(value, {})
    return value


def apply_override(data: Mapping[str, object], override: str) -> dict[str, object]:
    """Return a copy of `data` with one `a.b.c=VALUE` set; VALUE is YAML, missing mappings appear.

    Raises:
        ConfigError: not of that form, or it leads through something that is no mapping.
    """
    path, text = split_override(override)
    result = copy.deepcopy(dict(data))
    try:
        value = parse_yaml(text)
    except ConfigError as error:
        raise ConfigError(f"--set {override}: {error}") from error
    at: dict[str, object] = result
    for depth, key in enumerate(path[:-1], start=1):
        below = at.setdefault(key, {})
        if not isinstance(below, dict):
            raise ConfigError(f"--set {override}: `{'.'.join(path[:depth])}` is not a mapping")
        at = below
    at[path[-1]] = value
    return result


def split_override(override: str) -> tuple[tuple[str, ...], str]:
    """Return the keys and the text of the value of `a.b.c=VALUE`.

    Raises:
        ConfigError: not of that form.
    """
    name, equals, text = override.partition("=")
    path = tuple(part.strip() for part in name.split("."))
    if not equals or not all(path):
        raise ConfigError(f"--set {override}: wanted KEY=VALUE, such as video.pairs=4")
    return path, text


def suggest(name: str, known: Iterable[str]) -> str:
    """Return "did you mean `x`?", or the list of all that is known."""
    from difflib import get_close_matches  # here, as few make mistakes

    names = list(known)
    near = get_close_matches(name, names, n=1)
    return f"did you mean `{near[0]}`?" if near else f"known: {', '.join(names)}"


def _where(error: yaml.MarkedYAMLError) -> str:
    mark = error.problem_mark or error.context_mark
    return f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""


def _what(error: yaml.MarkedYAMLError) -> str:
    said = " ".join(filter(None, (error.context, error.problem)))
    return next((plain for part, plain in _PLAIN.items() if part in said), said) or "broken YAML"


def _expanded(value: object, sizes: dict[int, int]) -> int:
    """Return how many values there are, with everything that aliases repeat.

    Raises:
        ConfigError: a value that holds itself, more than MAX_VALUES, or a number too large to send.
    """
    if isinstance(value, int) and not MIN_INTEGER <= value <= MAX_INTEGER:
        raise ConfigError(f"the number {value} has more than 64 bits")
    if not isinstance(value, dict | list):
        return 1
    if id(value) not in sizes:
        sizes[id(value)] = -1  # not known yet: whoever meets this is inside of it
        parts = value.values() if isinstance(value, dict) else value
        sizes[id(value)] = 1 + sum(_expanded(part, sizes) for part in parts)
    size = sizes[id(value)]
    if size < 0:
        raise ConfigError("an alias (`*name`) stands inside of what it names")
    if size > MAX_VALUES:
        raise ConfigError(_TOO_MANY)
    return size
