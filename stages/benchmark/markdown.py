"""`report.md`: the results in the form that the origin's users know."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

_FIGURES = ("mean", "std", "median", "min", "max", "count", "nulls")
_SPECIAL = re.compile(r"([\\`*_{}\[\]()#+!|<>~&-])")
_MAX_TOLD = 1000  # samples without a score, one by one

Results = Mapping[str, Any]  # of results.json


def markdown_of(results: Results) -> str:
    """Return the report as Markdown."""
    return "\n".join(_lines(results)) + "\n"


def _lines(results: Results) -> Iterator[str]:
    metadata = results["metadata"]
    yield f"# Evaluation report: {_safe(metadata['model'])}"
    yield ""
    yield from _overview(results)
    for table in results["tables"]:
        for metric in metadata["metrics"]:
            name = f"{metric}, {table['name']}" if table["name"] != "all" else metric
            yield f"## Scores by category: {_safe(name)}"
            yield ""
            yield from _table(table, metric)
            yield ""
    yield from _unscored(results)
    yield "## Metadata"
    yield ""
    yield from _rows(("key", "value"), [(key, _shown(value)) for key, value in metadata.items()])


def _overview(results: Results) -> Iterator[str]:
    headline = results["metadata"]["headline"]
    overall = results["overall"].get(headline, {})
    counted = results["counts"]
    yield f"- Overall {_safe(headline)}: **{_number(overall.get('mean'))}**{_interval(overall)}"
    yield f"- Samples: {counted['samples']}, of which {counted['scored']} scored; " + ", ".join(
        f"{counted[state]} {state}" for state in ("failed", "unparsed", "unjudged", "lost")
    )
    for which in ("best", "worst"):
        found = results[f"{which}_category"]
        told = f"{_safe(found['category'])} ({_number(found['mean'])})" if found else "none"
        yield f"- {which.capitalize()} category: {told}"
    yield ""


def _table(table: Results, metric: str) -> Iterator[str]:
    rows = [(_safe(name), of[metric]) for name, of in table["categories"].items()]
    if table["overall"]:
        rows.append((f"**overall** ({table['overall_rule']})", table["overall"][metric]))
    yield from _rows(
        ("category", *_FIGURES, "95 % interval"),
        [
            (name, *(_number(of[figure]) for figure in _FIGURES), _interval(of).strip(" []"))
            for name, of in rows
        ],
    )


def _unscored(results: Results) -> Iterator[str]:
    if not (results["unscored"] or results["lost"]):
        return
    yield "## Samples without a score"
    yield ""
    yield "They are in no figure above."
    yield ""
    yield from _rows(
        ("sample", "category", "state", "reason"),
        [
            tuple(_safe(each[key]) for key in ("id", "category", "state", "reason"))
            for each in results["unscored"][:_MAX_TOLD]
        ],
    )
    yield ""
    if len(results["unscored"]) > _MAX_TOLD:
        yield f"And {len(results['unscored']) - _MAX_TOLD} more, in results.json."
        yield ""
    for reason in results["lost"]:
        yield f"- A whole group was lost: {_safe(reason)}"
    yield ""


def _rows(header: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    yield f"| {' | '.join(header)} |"
    yield f"|{'---|' * len(header)}"
    yield from (f"| {' | '.join(row)} |" for row in rows)


def _interval(summary: Results) -> str:
    both = summary.get("interval")
    return f" [{_number(both[0])}, {_number(both[1])}]" if both else ""


def _number(value: float | int | None) -> str:
    if value is None:
        return "-"
    return str(value) if isinstance(value, int) else f"{value:.3f}"


def _shown(value: object) -> str:
    return "-" if value in (None, "") else _safe(str(value))


def _safe(text: object) -> str:
    """Return text of others so that Markdown has nothing to read in it, on one line."""
    return _SPECIAL.sub(r"\\\1", " ".join(str(text).split()))
