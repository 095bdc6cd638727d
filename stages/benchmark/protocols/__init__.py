"""The protocols by which edits are judged, by name."""

from __future__ import annotations

from difflib import get_close_matches

from stages.base import UserError
from stages.benchmark.protocols.base import Protocol, Question, Row, Scores, Table
from stages.benchmark.protocols.gedit import GEdit
from stages.benchmark.protocols.imgedit import ImgEdit
from stages.benchmark.protocols.origin import Origin

__all__ = [
    "GEdit",
    "ImgEdit",
    "Origin",
    "Protocol",
    "Question",
    "Row",
    "Scores",
    "Table",
    "protocol",
]

_BY_NAME: dict[str, type[Protocol]] = {kind.name: kind for kind in (Origin, GEdit, ImgEdit)}


def protocol(name: str) -> Protocol:
    """Return the protocol of this name: "origin", "gedit" or "imgedit".

    Raises:
        UserError: there is none.
    """
    if name not in _BY_NAME:
        close = get_close_matches(name.casefold(), _BY_NAME, 1)
        hint = f"did you mean {close[0]}?" if close else f"there are {', '.join(_BY_NAME)}"
        raise UserError(f"{name}: no such protocol; {hint}")
    return _BY_NAME[name]()
