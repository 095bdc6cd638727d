"""Results as one page of HTML that needs nothing else: pictures, charts and styles are in it.

    python -m stages.benchmark.pages out/results.json --run-report run/report.json

What judges and data sets wrote is escaped, and the page's own policy lets nothing run but the
script that is named in it by its hash.
"""

from __future__ import annotations

import argparse
import json
from base64 import b64encode
from collections.abc import Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

from stages.base import UserError
from stages.benchmark.pages_charts import histogram, spark, whisker
from stages.benchmark.pages_run import repeat_part, run_part
from stages.benchmark.pages_samples import read_previews, samples_part, unscored_part
from stages.benchmark.pages_text import NONE, Markup, number, said, section, table
from stages.benchmark.pages_timeline import read_lanes, timeline
from stages.benchmark.pictures import write_file
from stages.benchmark.results import FORMAT

_FOLDER = Path(__file__).parent
_STYLE = (_FOLDER / "pages.css").read_text("utf-8")
_SCRIPT = (_FOLDER / "pages.js").read_text("utf-8")
_EDITS = "edits.jsonl"
_PREVIEWS = "previews.jsonl"

Json = Mapping[str, Any]


def write_pages(
    results: Path, output: Path, *, run_report: Path | None, trace: Path | None, images: Path
) -> None:
    """Write the page.

    Args:
        results: `results.json`; what lies beside it, of edits and previews, is used.
        output: of the page, whole or not at all.
        run_report: `report.json` of the run; None: the page does without.
        trace: `trace.json` of the run; None: likewise.
        images: folder of the edits, for samples without a preview.

    Raises:
        UserError: a file that is named is missing, or not what it should be.
        OSError: the page cannot be written.
    """
    found = _read(results)
    if not isinstance(found, dict) or found.get("format") != FORMAT:
        raise UserError(f"{results}: no results of format {FORMAT}")
    report = _read(run_report) if run_report else {}
    edits = _read_lines(results.with_name(_EDITS))
    drawn = Markup('<p class="note">There is no trace of this run.</p>')
    if trace:
        drawn = timeline(read_lanes(trace))
    parts = {
        "scores": _summary(found),
        "distribution": _distribution(found),
        "unscored": unscored_part(found),
        "run": run_part(report, edits, drawn) if report or trace else "",
        "repeat": repeat_part(found["metadata"], report, edits),
        "samples": samples_part(found, read_previews(results.with_name(_PREVIEWS)), images),
    }
    write_file(output, _page(found, parts).encode())


def make_page(output: Path, run_dir: Path) -> None:
    """Write `report.html` beside the results in `output`; nothing, if there are none.

    Args:
        output: a run's output folder.
        run_dir: its run directory, with report and trace.

    Raises:
        UserError, OSError: as `write_pages`.
    """
    results = output / "results.json"
    if results.exists():
        report, trace = run_dir / "report.json", run_dir / "trace.json"
        write_pages(
            results,
            output / "report.html",
            run_report=report if report.exists() else None,
            trace=trace if trace.exists() else None,
            images=output / "images",
        )


def _page(results: Json, parts: Mapping[str, str]) -> str:
    metadata = results["metadata"]
    title = f"{metadata['model']}: {metadata['protocol']}"
    digest = b64encode(sha256(_SCRIPT.encode()).digest()).decode()
    allowed = f"img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"
    links = "".join(f'<li><a href="#{name}">{name}</a></li>' for name in parts if parts[name])
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; {allowed}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{said(title)}</title><style>{_STYLE}</style></head>\n<body>"
        f'<a class="skip" href="#scores">to the scores</a>{_hero(results)}'
        f'<nav aria-label="Parts of this page"><ul>{links}</ul></nav>\n'
        f"<main>{''.join(parts.values())}</main>"
        f"<script>{_SCRIPT}</script></body></html>\n"
    )


def _hero(results: Json) -> Markup:
    """Return who was judged by whom, and the one number."""
    metadata, counted = results["metadata"], results["counts"]
    headline = metadata["headline"]
    overall = results["overall"].get(headline) or {}
    interval = overall.get("interval")
    told = f"95 % interval {number(interval[0])} to {number(interval[1])}" if interval else ""
    badges = "".join(
        f'<li class="badge {state}">{counted[state]} {state}</li>'
        for state in ("scored", "failed", "unparsed", "unjudged", "lost")
        if counted[state] or state == "scored"
    )
    judge = " ".join(filter(None, (metadata["judge"], metadata["judge_revision"])))
    mean = overall.get("mean")
    return Markup(
        f'<header class="hero"><div><h1>{said(metadata["model"])}</h1>'
        f"<p>{said(metadata['protocol'])}, judged by {said(judge or 'a judge without a name')}; "
        f"{counted['samples']} samples</p>"
        f'<ul class="counts" aria-label="Samples by state">{badges}</ul></div>'
        f'<div class="big"><strong>{number(mean) if mean is not None else "&ndash;"}</strong>'
        f"<span>{said(headline)}, {metadata['range'][0]:g} to {metadata['range'][1]:g}"
        f"<br>{told}</span></div></header>\n"
    )


def _summary(results: Json) -> Markup:
    headline = results["metadata"]["headline"]
    tables = []
    for each in results["tables"]:
        tables.append(_score_table(results, each, headline))
        others = [metric for metric in results["metadata"]["metrics"] if metric != headline]
        if others:
            shown = "".join(_score_table(results, each, metric) for metric in others)
            names = said(", ".join(others))
            tables.append(Markup(f"<details><summary>{names}</summary>{shown}</details>"))
    best, worst = results["best_category"], results["worst_category"]
    told = ""
    if best and worst:
        told = "".join(
            f"<p>{name} category: <strong>{said(each['category'])}</strong> "
            f"({number(each['mean'])}).</p>"
            for name, each in (("Best", best), ("Worst", worst))
        )
    note = "Figures are of the samples with a score. The interval is of the mean, by bootstrap."
    return section("scores", "Scores", told, *tables, note=note)


def _score_table(results: Json, each: Json, metric: str) -> Markup:
    low, high = results["metadata"]["range"]
    scores = _scores(results, each, metric)
    rows = [
        (*_figures(name, of[metric], low, high), spark(scores.get(name, ()), low, high))
        for name, of in each["categories"].items()
    ]
    every = [score for some in scores.values() for score in some]
    overall = each["overall"].get(metric)
    last = (*_figures("overall", overall, low, high), spark(every, low, high)) if overall else ()
    header = ("category", "mean", "std", "median", "min", "max", "scored", "null")
    more = ("95 % interval", "on the scale", "distribution")
    name = metric if each["name"] == "all" else f"{metric}, {each['name']}"
    caption = f"{name} by category; overall: {each['overall_rule']}"
    return table(caption, (*header, *more), rows, kind="scores", last=last)


def _figures(name: str, summary: Json, low: float, high: float) -> tuple[object, ...]:
    figures = [summary[key] for key in ("mean", "std", "median", "min", "max", "count", "nulls")]
    interval = summary["interval"]
    told = f"{number(interval[0])} to {number(interval[1])}" if interval else Markup(NONE)
    return (name, *figures, told, whisker(summary["mean"], interval, low, high))


def _scores(results: Json, shown: Json, metric: str) -> Mapping[str, list[float]]:
    """Return the scores by category of those samples that are in a table."""
    members = set(shown["samples"])
    found: dict[str, list[float]] = {}
    for each in results["samples"]:
        if each["scores"] and each["id"] in members:
            found.setdefault(each["group"], []).append(each["scores"][metric])
    return found


def _distribution(results: Json) -> Markup:
    metadata = results["metadata"]
    headline = metadata["headline"]
    scores = [each["scores"][headline] for each in results["samples"] if each["scores"]]
    low, high = metadata["range"]
    return section("distribution", "Distribution", histogram(scores, low, high, headline))


def _read(path: Path) -> Any:  # noqa: ANN401 -- JSON of any shape
    try:
        return json.loads(path.read_bytes())
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise UserError(f"{path}: is no JSON: {error}") from error


def _read_lines(path: Path) -> list[Json]:
    """Return the objects of a file of JSON lines; none if there is no such file."""
    if not path.exists():
        return []
    try:
        return [json.loads(line) for line in path.read_text("utf-8").split("\n") if line]
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: is damaged: {error}") from error


def main(args: Sequence[str] | None = None) -> None:
    """Make a page from the command line."""
    parser = argparse.ArgumentParser(prog="python -m stages.benchmark.pages", description=__doc__)
    parser.add_argument("results", type=Path, help="results.json")
    parser.add_argument("--output", type=Path, help="the page; report.html beside the results")
    parser.add_argument("--run-report", type=Path, help="report.json of the run")
    parser.add_argument("--trace", type=Path, help="trace.json; the one beside the run report")
    parser.add_argument("--images", type=Path, help="folder of edits; images/ beside the results")
    asked = parser.parse_args(args)
    beside = asked.run_report.with_name("trace.json") if asked.run_report else None
    try:
        write_pages(
            asked.results,
            asked.output or asked.results.with_name("report.html"),
            run_report=asked.run_report,
            trace=asked.trace or (beside if beside and beside.exists() else None),
            images=asked.images or asked.results.with_name("images"),
        )
    except (UserError, OSError) as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()
