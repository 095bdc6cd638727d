"""The picture of a run, laid out and coloured by rich, as lines of text. Imported to draw only."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from runtime.live import Snapshot
from runtime.view import Column, columns, fitting, total

GAP = 2  # between two columns
LAST_WIDTH = 20  # what the last column needs: "waits for a free slot"

_TRAILING = re.compile(r" +((?:\x1b\[[0-9;]*m)*)$")  # which would wrap in a narrower terminal


def drawn(history: Sequence[Snapshot], *, width: int, height: int) -> list[str]:
    """Return at most `height` lines of at most `width` columns: head, workers, the whole."""
    kept = cut(columns(history), width)
    num_workers = len(history[-1].workers)
    room = height - 2  # without head and the whole
    num_shown = num_workers if num_workers <= room else max(room - 1, 0)
    output = io.StringIO()
    console = Console(
        file=output,
        width=width,
        height=height,
        force_terminal=True,
        legacy_windows=False,
        highlight=False,
        markup=False,
        emoji=False,
    )
    if num_shown:
        console.print(_table(kept, num_shown))
        if num_shown < num_workers:
            console.print(Text(f"and {num_workers - num_shown} more workers"[:width]))
    console.print(_whole(history, width))
    return [_TRAILING.sub(r"\1", line) for line in output.getvalue().splitlines()]


def _table(kept: Sequence[Column], num_rows: int) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, GAP, 0, 0), header_style="dim")
    for column in kept:
        table.add_column(column.head, justify="right" if column.is_number else "left", no_wrap=True)
    for row in zip(*(column.cells[:num_rows] for column in kept), strict=True):
        table.add_row(*row)
    return table


def cut(table: Sequence[Column], width: int) -> list[Column]:
    """Return the columns there is room for; what is too long even then is cut off."""
    kept = list(table)
    while _width(kept[:-1]) + min(kept[-1].width, LAST_WIDTH) > width:
        least = max(kept, key=lambda column: column.rank)
        if least.rank == 0:
            break
        kept.remove(least)
    room = max(width - _width(kept[:-1]), 0)
    last = kept[-1]
    cells = tuple(cell[:room] for cell in last.cells)
    kept[-1] = Column(last.head[:room], cells, last.rank, is_number=last.is_number)
    return kept if room else kept[:-1]


def _width(table: Sequence[Column]) -> int:
    return sum(column.width + GAP for column in table)


def _whole(history: Sequence[Snapshot], width: int) -> Text:
    line = Text(no_wrap=True, overflow="crop")
    for part in fitting(total(history), width):
        line.append(", " if line else "")
        line.append(part.text, style="bold red" if part.is_bad else "bold" if not line else "")
    line.truncate(width)
    return line
