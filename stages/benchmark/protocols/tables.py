"""Rows of samples into tables of statistics, in a fixed order. Knows no protocol's name."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterable, Mapping, Sequence

from stages.benchmark.protocols.base import Row, Table
from stages.benchmark.statistics import Summary, summarize_groups

RULES = {"samples": "mean over samples", "groups": "mean of the groups' means"}


def table(
    name: str,
    rows: Sequence[Row],
    metrics: Sequence[str],
    *,
    overall: str,
    order: Sequence[str] = (),
) -> Table:
    """Return the statistics of `rows` by group.

    Args:
        name: of the table.
        rows: the samples, with the names of groups that are to be shown.
        metrics: of every sample that has scores.
        overall: "samples" or "groups", as `summarize_groups` means it.
        order: of groups; those that are not in it follow by name.
    """
    found = {row.group for row in rows}
    names = [*(group for group in order if group in found), *sorted(found - set(order))]
    members = {group: [row for row in rows if row.group == group] for group in names}
    return Table(
        name=name,
        overall_rule=RULES[overall],
        groups={group: _by_metric([members[group]], metrics, overall) for group in names},
        overall=_by_metric(list(members.values()), metrics, overall),
        samples=tuple(row.id for row in rows),
    )


def _by_metric(
    groups: Sequence[Sequence[Row]], metrics: Sequence[str], overall: str
) -> Mapping[str, Summary]:
    return {
        metric: summarize_groups(
            [[row.scores[metric] if row.scores else None for row in rows] for rows in groups],
            overall=overall,
        )
        for metric in metrics
    }


def by_language(rows: Iterable[Row], language: Callable[[str], str]) -> dict[str, list[Row]]:
    """Return the rows of each language, English first."""
    found = dict[str, list[Row]]()
    for row in rows:
        found.setdefault(language(row.language), []).append(row)
    return dict(sorted(found.items(), key=lambda pair: (pair[0] != "en", pair[0])))


def csv_text(header: Sequence[str], lines: Iterable[Sequence[object]]) -> str:
    """Return a CSV file's text, as Python's and pandas' readers take it."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(lines)
    return file.getvalue()


def is_chinese(language: str) -> bool:
    """Whether a data set means Chinese by this: "zh", "zh-CN", "cn", "chinese"."""
    return language.casefold().startswith(("zh", "cn", "chinese"))
