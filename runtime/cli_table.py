"""Columns of text, and numbers as people read them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

_UNITS = ("bytes", "KiB", "MiB", "GiB", "TiB")


def table(head: Sequence[str], rows: Iterable[Sequence[str]], *, right: str = "") -> list[str]:
    """Return lines with aligned columns.

    Args:
        head: names of the columns.
        rows: as long as `head`.
        right: names of columns that are aligned to the right, with commas between.
    """
    lines = [list(head), *map(list, rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    to_the_right = [name in right.split(",") for name in head]
    return [
        "  ".join(
            cell.rjust(width) if is_right else cell.ljust(width)
            for cell, width, is_right in zip(line, widths, to_the_right, strict=True)
        ).rstrip()
        for line in lines
    ]


def nbytes_text(nbytes: float) -> str:
    """Return "0 bytes", "9.5 MiB", "140 GiB"."""
    unit = 0
    while nbytes >= 1000 and unit < len(_UNITS) - 1:
        nbytes, unit = nbytes / 1024, unit + 1
    digits = 1 if unit and nbytes < 100 else 0
    return f"{nbytes:.{digits}f} {_UNITS[unit]}"


def seconds_text(seconds: float) -> str:
    """Return "0.3 s", "12.3 s", "2 min 5 s", "3 h 2 min"."""
    if seconds < 100:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 100:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60} h {minutes % 60} min"
