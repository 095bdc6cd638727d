"""Which format a set is in, by its name or by what it looks like."""

from __future__ import annotations

import os
from difflib import get_close_matches

from stages.base import UserError
from stages.benchmark.formats import folder, imgedit, origin
from stages.benchmark.formats.record import Reading, Records
from stages.benchmark.formats.stream import is_by_key

FORMATS = ("origin", "re-edit", "gedit", "imgedit", "folder")
HOLDING_IMAGES = ("origin", "re-edit", "gedit")  # in the file itself, not beside it


def format_of(path: str, name: str) -> str:
    """Return the name of the format of the set at `path`, which is `name` unless that is "auto".

    Raises:
        UserError: there is nothing, or nothing that looks like a set; or no such format.
    """
    if not os.path.exists(path):
        raise UserError(f"{path}: no such file or folder; give the path of a sample set")
    if name in FORMATS:
        return name
    if name != "auto":
        nearest = get_close_matches(name, FORMATS, n=1, cutoff=0)[0]
        raise UserError(
            f"data_format = {name!r}: did you mean {nearest!r}? There are auto, "
            f"{', '.join(FORMATS)}"
        )
    return _looks_like(path)


def files_of(path: str, data_format: str) -> tuple[str, ...]:
    """Return the files that are read of a set, but for images beside them."""
    if data_format == "folder" and os.path.isdir(path):
        return (os.path.join(path, folder.LIST_NAME),)
    if data_format != "gedit" or not os.path.isdir(path):
        return (path,)
    return tuple(
        os.path.join(path, name) for name in sorted(os.listdir(path)) if name.endswith(".parquet")
    )


def records_of(reading: Reading, data_format: str) -> Records:
    """Return the records of a set, as a stream.

    Raises:
        BrokenInputError: while they are taken: the file breaks off.
        UserError: likewise: it cannot be read.
    """
    match data_format:
        case "origin" | "re-edit":
            return origin.records(reading)
        case "imgedit":
            return imgedit.records(reading)
        case "folder":
            return folder.records(reading)
        case _:
            from stages.benchmark.formats import gedit  # pyarrow: only who needs it waits for it

            return gedit.records(files_of(reading.path, data_format), reading)


def _looks_like(path: str) -> str:
    if os.path.isdir(path):
        names = os.listdir(path)
        if folder.LIST_NAME in names:
            return "folder"
        if any(name.endswith(".parquet") for name in names):
            return "gedit"
        raise UserError(
            f"{path}: a folder with neither {folder.LIST_NAME} nor parquet files; give a sample set"
        )
    match os.path.splitext(path)[1].lower():
        case ".parquet":
            return "gedit"
        case ".jsonl":
            return "folder"
        case ".json":
            return "imgedit" if is_by_key(path) else "origin"
        case other:
            raise UserError(
                f"{path}: cannot tell its format by {other or 'a name without ending'}; "
                f"say data_format: {', '.join(FORMATS)}"
            )
