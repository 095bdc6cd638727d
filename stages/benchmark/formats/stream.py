"""JSON as a stream: one element at a time, however large the file is."""

from __future__ import annotations

from collections.abc import Iterator
from typing import BinaryIO, cast

import ijson

from stages.base import UserError
from stages.benchmark.formats.record import BrokenInputError, unreadable

# A text of 2 MB in pieces of 64 KiB is put together 32 times, which takes ten times as long.
_BUFFER_BYTES = 1 << 20
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"

Event = tuple[str, object]


def elements(path: str) -> Iterator[tuple[str, object]]:
    """Yield the elements of a JSON file, holding one at a time.

    Of `[a, b]` these are ("", a) and ("", b); of `{"k": [a, b]}` ("k", a) and ("k", b); of
    `{"k": {...}}` ("k", {...}).

    Raises:
        BrokenInputError: it breaks off, or is no JSON from somewhere on.
        UserError: it cannot be read, or is neither list nor object.
    """
    try:
        with open(path, "rb") as file:
            yield from _elements(path, _events(file))
    except OSError as error:
        raise unreadable(path, error) from error
    except (ijson.JSONError, UnicodeDecodeError) as error:
        raise BrokenInputError(_short(str(error))) from error


def is_by_key(path: str) -> bool:
    """Whether the file is an object whose first value is an object, not a list.

    Raises:
        UserError: it cannot be read, or begins as no JSON.
    """
    try:
        with open(path, "rb") as file:
            starts = [name for _, (name, _) in zip(range(3), _events(file), strict=False)]
    except OSError as error:
        raise unreadable(path, error) from error
    except (ijson.JSONError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: is no JSON ({_short(str(error))}); give another file") from error
    return starts == ["start_map", "map_key", "start_map"]


def _events(file: BinaryIO) -> Iterator[Event]:
    if file.read(len(_BYTE_ORDER_MARK)) != _BYTE_ORDER_MARK:
        file.seek(0)
    events = ijson.basic_parse(file, use_float=True, buf_size=_BUFFER_BYTES)
    return cast("Iterator[Event]", events)


def _elements(path: str, events: Iterator[Event]) -> Iterator[tuple[str, object]]:
    top, _ = next(events)
    if top == "start_array":
        yield from (("", value) for value in _values(events))
        return
    if top != "start_map":
        raise UserError(f"{path}: is JSON, but no list of samples; give another file")
    for name, value in events:
        if name == "end_map":
            continue  # the end of all: one more event would be an error
        key, (start, first) = str(value), next(events)
        if start == "start_array":
            yield from ((key, one) for one in _values(events))
        else:
            yield key, _value(start, first, events)


def _values(events: Iterator[Event]) -> Iterator[object]:
    """Yield the values of a list that has just begun."""
    for name, value in events:
        if name == "end_array":
            return
        yield _value(name, value, events)


def _value(name: str, value: object, events: Iterator[Event]) -> object:
    """Return the value that an event begins; takes the events of its parts."""
    if name not in ("start_map", "start_array"):
        return value
    builder = ijson.ObjectBuilder()
    builder.event(name, value)
    depth = 1
    while depth:
        name, value = next(events)
        builder.event(name, value)
        depth += name.startswith("start_")
        depth -= name.startswith("end_")
    return cast("object", builder.value)


def _short(message: str) -> str:
    """Return the first line of what the parser says; the others draw a picture of megabytes."""
    lines = message.removeprefix("b'").replace("\\n", "\n").splitlines()
    return lines[0].strip() if lines else "no JSON"
