"""The kinds of values in a configuration: each says in one line what was wanted instead."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field, JsonValue, Strict, WithJsonSchema

_STAGE_NAME = r"^[a-z][a-z0-9_]*$"
_USE = r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$"


def _stage_name(name: str) -> str:
    if not re.match(_STAGE_NAME, name):
        raise ValueError("a stage name is made of a-z, 0-9 and _, and starts with a letter")
    return name


def _keyword(name: str) -> str:
    if not name.isidentifier():
        raise ValueError("not a keyword that a constructor could have")
    return name


def _use(use: str) -> str:
    if not re.match(_USE, use):
        raise ValueError(f'wanted "module:Class", such as "stages.eden:Denoise", found {use!r}')
    return use


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
Text = Annotated[str, Strict(), Field(min_length=1)]
Keywords = Mapping[Annotated[str, Strict(), AfterValidator(_keyword)], JsonValue]
Count = Annotated[int, Strict(), Field(ge=1)]
CountOrAuto = Annotated[Count | Literal["auto"], BeforeValidator(_count_or_auto)]
Seconds = Annotated[float, Strict(), Field(gt=0, allow_inf_nan=False)]
Require = Literal["cuda", "host"] | None
