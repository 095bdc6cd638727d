"""The kinds of values in a configuration: each says in one line what was wanted instead."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from types import ModuleType
from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field, JsonValue, Strict, WithJsonSchema

_PLUGINS = "pydantic.plugin._loader"  # with the first model it looks for plugins in all packages
_STAGE_NAME = r"^[a-z][a-z0-9_]*$"
_FILE_NAME = r"^[A-Za-z0-9][A-Za-z0-9_-]*\.[A-Za-z0-9.]+$"
_USE = r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$"


def without_plugins() -> None:
    """Have pydantic look for no plugins: that takes 45 ms, of 330 that `runpipe check` took.

    The variable PYDANTIC_DISABLE_PLUGINS saves none of it: what looks for them is loaded anyway. A
    pydantic that does it elsewhere is only slower; one that has looked already is left alone.
    """
    nobody = ModuleType(_PLUGINS)
    nobody.__dict__["get_plugins"] = tuple
    sys.modules.setdefault(_PLUGINS, nobody)


def _stage_name(name: str) -> str:
    if not re.fullmatch(_STAGE_NAME, name):
        raise ValueError("a stage name is made of a-z, 0-9 and _, and starts with a letter")
    return name


def _keyword(name: str) -> str:
    if not name.isidentifier():
        raise ValueError("not a keyword that a constructor could have")
    return name


def _use(use: str) -> str:
    if not re.fullmatch(_USE, use):
        raise ValueError(f'wanted "module:Class", such as "stages.eden:Denoise", found {use!r}')
    return use


def _file_name(name: str) -> str:
    if not re.fullmatch(_FILE_NAME, name):
        raise ValueError(f'wanted the name of a file, such as "edits.jsonl", found {name!r}')
    return name


def _count_or_auto(value: object) -> object:
    is_count = isinstance(value, int) and not isinstance(value, bool) and value >= 1
    if not is_count and value != "auto":
        raise ValueError(f"wanted `auto` or a whole number of at least 1, found {value!r}")
    return value


StageName = Annotated[
    str,
    Strict(),
    AfterValidator(_stage_name),
    WithJsonSchema({"type": "string", "pattern": _STAGE_NAME}),
]
Use = Annotated[
    str, Strict(), AfterValidator(_use), WithJsonSchema({"type": "string", "pattern": _USE})
]
FileName = Annotated[
    str,
    Strict(),
    AfterValidator(_file_name),
    WithJsonSchema({"type": "string", "pattern": _FILE_NAME}),
]
Text = Annotated[str, Strict(), Field(min_length=1)]
Keywords = Mapping[Annotated[str, Strict(), AfterValidator(_keyword)], JsonValue]
Count = Annotated[int, Strict(), Field(ge=1)]
Replicas = Annotated[int, Strict(), Field(ge=1, lt=1025)]  # each is a process
CountOrAuto = Annotated[Count | Literal["auto"], BeforeValidator(_count_or_auto)]
Seconds = Annotated[float, Strict(), Field(gt=0, allow_inf_nan=False)]
Require = Literal["cuda", "host"] | None
