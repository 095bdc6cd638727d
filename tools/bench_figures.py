"""Figures that a benchmark found, beside what they shall be: the table at the end."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from runtime.cli_table import table

Side = Literal["<=", ">="]


@dataclass(frozen=True, slots=True)
class Figure:
    """One row. Without a target it is there for comparison; without a value it says why."""

    what: str
    measured: float | None
    unit: str = ""
    target: float | None = None
    side: Side = "<="
    note: str = ""

    @property
    def is_met(self) -> bool | None:
        """Whether the target is met; None where there is no target or nothing was measured."""
        if self.target is None or self.measured is None:
            return None
        return self.measured <= self.target if self.side == "<=" else self.measured >= self.target

    @property
    def verdict(self) -> str:
        """ "met", "missed by 12 %", "not measured" or, without a target, "-"."""
        if self.target is None:
            return "-"
        if self.measured is None:
            return "not measured"
        if self.is_met:
            return "met"
        return f"missed by {abs(self.measured / self.target - 1):.1%}"


def figure_lines(figures: Iterable[Figure]) -> list[str]:
    """Return the table of all figures."""
    rows = [
        (
            one.what,
            "-" if one.measured is None else _number(one.measured, one.unit),
            "" if one.target is None else f"{one.side} {_number(one.target, one.unit)}",
            one.verdict,
            one.note,
        )
        for one in figures
    ]
    return table(("figure", "measured", "target", "verdict", "note"), rows, right="measured,target")


def _number(value: float, unit: str) -> str:
    digits = 0 if value >= 1000 else 1 if value >= 100 else 2 if value >= 10 else 3
    return f"{value:.{digits}f} {unit}".rstrip()
