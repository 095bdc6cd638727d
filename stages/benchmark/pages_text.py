"""HTML as text: escaping what others wrote, numbers for people, tables. Knows no results."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from html import escape

NONE = '<span class="none">&ndash;</span>'

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ufffe\uffff\ud800-\udfff]")
_TURNING = re.compile("[\u202a-\u202e\u2066-\u2069\u200e\u200f\u061c]")  # of the reading direction


class Markup(str):
    """HTML that we made. Everything else is escaped where it is put into a page."""

    __slots__ = ()


def said(text: object) -> Markup:
    """Return what somebody else wrote, harmless: escaped, without controls, turning nothing."""
    plain = _TURNING.sub("", _CONTROL.sub("\ufffd", str(text)))
    return Markup(escape(plain))


def html_of(value: object) -> Markup:
    """Return a value as HTML: ours as it is, None as a dash, numbers for people, else escaped."""
    if isinstance(value, Markup):
        return value
    if value is None or value == "":
        return Markup(NONE)
    if isinstance(value, bool):
        return Markup("yes" if value else "no")
    if isinstance(value, float):
        return Markup(number(value))
    if isinstance(value, int):
        return Markup(f"{value:,}")
    return said(value)


def number(value: float | None, digits: int = 2) -> str:
    """Return a number with so many decimals, "-" for None."""
    return "-" if value is None else f"{value:,.{digits}f}"


def seconds(value: float) -> str:
    """Return "4.2 s", "3 min 20 s", "2 h 5 min"."""
    if value < 60:
        return f"{value:.1f} s"
    minutes, rest = divmod(round(value), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60} h {minutes % 60} min"


def nbytes(value: int) -> str:
    """Return "57.7 GiB"."""
    size, unit = float(value), "B"
    for bigger in ("KiB", "MiB", "GiB", "TiB"):
        if size < 1024:
            break
        size, unit = size / 1024, bigger
    return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"


def table(
    caption: str,
    header: Sequence[str],
    rows: Iterable[Sequence[object]],
    *,
    kind: str = "",
    last: Sequence[object] = (),
) -> Markup:
    """Return a table; its first column names the rows.

    Args:
        caption: what it is, for people.
        header: one text a column.
        rows: cells, as `html_of` takes them.
        kind: classes of CSS.
        last: a row apart at the end.
    """
    parts = [f'<div class="scroll"><table class="{kind}"><caption>{said(caption)}</caption><thead>']
    parts += ["<tr>", *(f'<th scope="col">{said(text)}</th>' for text in header), "</tr></thead>"]
    parts += ["<tbody>", *(_row(row) for row in rows), "</tbody>"]
    if last:
        parts += ["<tfoot>", _row(last), "</tfoot>"]
    return Markup("".join([*parts, "</table></div>"]))


def pairs(caption: str, rows: Iterable[tuple[str, object]]) -> Markup:
    """Return a table of names and values."""
    return table(caption, ("what", "value"), rows, kind="pairs")


def section(name: str, title: str, *content: str, note: str = "") -> Markup:
    """Return a part of the page, with a heading that links can name."""
    told = f'<p class="note">{said(note)}</p>' if note else ""
    body = "".join(content)
    return Markup(
        f'<section id="{name}" aria-labelledby="{name}-title">'
        f'<h2 id="{name}-title">{said(title)}</h2>{told}{body}</section>\n'
    )


def _row(cells: Sequence[object]) -> str:
    first, *rest = cells
    others = "".join(
        f'<td class="number">{html_of(cell)}</td>'
        if _is_number(cell)
        else f"<td>{html_of(cell)}</td>"
        for cell in rest
    )
    return f'<tr><th scope="row">{html_of(first)}</th>{others}</tr>'


def _is_number(cell: object) -> bool:
    return cell is None or isinstance(cell, int | float)
