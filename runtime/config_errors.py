"""Turns pydantic's errors into the one line that tells people what to write instead."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import date
from typing import get_args

import yaml
from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from runtime.yaml_text import split_override, suggest

_WANTED = {
    "bool_type": "true or false",
    "dict_type": "a mapping",
    "float_type": "a number",
    "int_type": "a whole number",
    "invalid-json-value": "text, a number, true, false, a list or a mapping",
    "mapping_type": "a mapping",
    "model_type": "a mapping",
    "string_type": "text",
    "tuple_type": "a list",
}
_BOUNDS = {
    "greater_than": ("more than", "gt"),
    "greater_than_equal": ("at least", "ge"),
    "less_than": ("less than", "lt"),
    "literal_error": ("", "expected"),
}
_SHOWN_CHARS = 40  # of a wrong value
# What other programs call it; no spelling would lead from there to ours.
_GPUS = "did you mean `gpus`, which each stage has of its own?"
_PAIRS = "did you mean `video.pairs`, the frame pairs computed together?"
_ELSEWHERE = {
    "batch_size": _PAIRS,
    "device": _GPUS,
    "device_id": _GPUS,
    "device_ids": _GPUS,
    "devices": _GPUS,
    "use_batch_inference": "leave it out: batches are fixed by `video.pairs`",
}


def explain(
    error: ValidationError, model: type[BaseModel], where: str, overrides: Sequence[str]
) -> str:
    """Return "WHERE: KEY: what is wrong (and N more)".

    Args:
        error: what `model` said.
        model: the whole configuration.
        where: the file.
        overrides: "KEY=VALUE"; one that the error comes from is named in place of the file.
    """
    # a mistyped key is often a missing one too; the typing error is the one to show
    errors = sorted(error.errors(), key=lambda details: details["type"] != "extra_forbidden")
    path = tuple(str(part) for part in errors[0]["loc"] if part != "[key]")
    where = next((f"--set {each}" for each in overrides[::-1] if _sets(each, path)), where)
    more = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
    key = f"{'.'.join(path)}: " if path else ""
    return f"{where}: {key}{_message(errors[0], _fields_at(model, path[:-1]))}{more}"


def key_hint(key: str, known: Iterable[str]) -> str:
    """Return what to write instead of an unknown key: "did you mean `gpus`?"."""
    return _ELSEWHERE.get(key) or suggest(key, known)


def _message(details: ErrorDetails, fields: Mapping[str, FieldInfo]) -> str:
    kind, found = details["type"], details["input"]
    context = details.get("ctx", {})
    if kind == "extra_forbidden":
        return f"unknown key; {key_hint(str(details['loc'][-1]), fields)}"
    if kind == "missing":
        return f"missing; {_example(str(details['loc'][-1]), fields)}"
    if kind == "value_error":
        return str(context["error"])
    if kind == "string_too_short":
        return "is empty; leave the key out, or give it a value"
    if kind in _WANTED:
        return f"wanted {_WANTED[kind]}, found {_found(found)}"
    if kind in _BOUNDS:
        words, name = _BOUNDS[kind]
        return f"wanted {words} {context[name]}, found {_found(found)}".replace("  ", " ")
    return f"{details['msg'][:1].lower()}{details['msg'][1:]}, found {_found(found)}"


def _found(value: object) -> str:
    match value:
        case None:
            return "nothing"
        case bool():
            return str(value).lower()
        case Mapping():
            return "a mapping"
        case list() | tuple():
            return "a list"
        case str():
            return f"the text {_short(value)}"
        case int() | float():
            return _short(value)
        case date():
            return f"the date {value}; put it in quotes if it is text"
    return f"{type(value).__name__} {_short(value)}"


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= _SHOWN_CHARS else f"{text[:_SHOWN_CHARS]}..."


def _sets(override: str, path: tuple[str, ...]) -> bool:
    keys, _value = split_override(override)
    shared = min(len(keys), len(path))
    return shared > 0 and keys[:shared] == path[:shared]


def _example(key: str, fields: Mapping[str, FieldInfo]) -> str:
    (example,) = fields[key].examples or ("...",)
    text = yaml.safe_dump({key: example}, default_flow_style=True, sort_keys=False, width=1000)
    return f"give it, such as `{text.strip()[1:-1]}`"


def _fields_at(model: type[BaseModel], path: tuple[str, ...]) -> dict[str, FieldInfo]:
    for part in path:
        fields = _fields(model)
        inside = _models_in(fields[part].annotation) if part in fields else []
        model = next(iter(inside), model)  # none: the name of a stage, and not a key
    return _fields(model)


def _fields(model: type[BaseModel]) -> dict[str, FieldInfo]:
    return {field.alias or name: field for name, field in model.model_fields.items()}


def _models_in(annotation: object) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for part in get_args(annotation) for model in _models_in(part)]
