"""GEdit-Bench: parquet files with images in them. This file alone imports pyarrow: it is large."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from typing import cast

from pyarrow import ArrowException
from pyarrow.parquet import ParquetFile

from stages.base import UserError
from stages.benchmark.formats.record import (
    BrokenInputError,
    Fields,
    Reading,
    Record,
    Records,
    unreadable,
)

_COLUMNS = ("key", "task_type", "instruction", "instruction_language", "input_image")
_INTERSECTION = "Intersection_exist"  # whether both languages have this sample, in the whole set
_ROWS_AT_ONCE = 1  # Arrow holds a whole row group anyway, about three times
_BUFFER_BYTES = 1 << 20


def records(files: Sequence[str], reading: Reading) -> Records:
    """Yield the records of these files, in order.

    Raises:
        BrokenInputError: rows cannot be read.
        UserError: a file cannot be opened, or lacks a column.
    """
    number = 0
    for path in files:
        for row in _rows(path):
            number += 1
            record = _record(number, row)
            if reading.wants(record.language):
                yield record


def _rows(path: str) -> Iterator[Mapping[str, object]]:
    try:
        table = ParquetFile(path, buffer_size=_BUFFER_BYTES)
    except ArrowException as error:
        raise UserError(f"{path}: is no parquet file that can be read; copy it again") from error
    except OSError as error:
        raise unreadable(path, error) from error
    with table:
        there = table.schema_arrow.names
        if missing := [name for name in _COLUMNS if name not in there]:
            raise UserError(f"{path}: has no column `{'`, `'.join(missing)}`; is it GEdit-Bench?")
        wanted = [name for name in (*_COLUMNS, _INTERSECTION) if name in there]
        batches = table.iter_batches(_ROWS_AT_ONCE, columns=wanted, use_threads=False)
        try:
            for batch in batches:
                yield from cast("list[Mapping[str, object]]", batch.to_pylist())
        except (ArrowException, OSError) as error:
            raise BrokenInputError(f"{os.path.basename(path)}: {error}") from error


def _record(number: int, row: Mapping[str, object]) -> Record:
    fields = Fields(row)
    image = row.get("input_image")
    if isinstance(image, Mapping):  # as `datasets` stores one: {"bytes": ..., "path": ...}
        image = image.get("bytes")
    if not isinstance(image, bytes):
        fields.say("no field `input_image`")
    return Record(
        place=f"row {number}",
        id=fields.text("key") or f"row-{number:04}",
        group=fields.text("task_type"),
        language=fields.text("instruction_language"),
        instruction=fields.text("instruction"),
        image=image if isinstance(image, bytes) else b"",
        tags=("intersection",) if row.get(_INTERSECTION) is True else (),
        problem=fields.problem,
    )
