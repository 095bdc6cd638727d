"""What the run that made the scores was: workers, GPUs, work done, what one needs to repeat it.

It reads `report.json` of a run, with or without sections, and what is known of the edits. Nothing
of it has to be there.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from stages.benchmark.pages_text import (
    NONE,
    Markup,
    nbytes,
    number,
    pairs,
    said,
    seconds,
    section,
    table,
)

Report = Mapping[str, Any]
_EDIT = "edit"  # part of the name of stages that edit


def sections_of(report: Report) -> Mapping[str, Report]:
    """Return the reports of a run's parts by name; one without sections is its own part."""
    return report.get("sections") or {str(report.get("pipeline", "run")): report}


def workers_of(report: Report) -> list[tuple[str, Report]]:
    """Return (section, worker) of all that worked."""
    return [
        (name, worker)
        for name, part in sections_of(report).items()
        for worker in part.get("workers", ())
    ]


def run_part(report: Report, edits: Sequence[Report], timeline: Markup) -> Markup:
    """Return what the run was, with the timeline."""
    return section(
        "run",
        "The run",
        pairs("In short", _facts(report, edits)),
        "<h3>What each worker did</h3>",
        timeline,
        _workers(report),
        _warnings(report),
    )


def _facts(report: Report, edits: Sequence[Report]) -> Iterator[tuple[str, object]]:
    yield "ended as", report.get("status")
    yield "started", report.get("started_at")
    if report.get("wall_s"):
        yield "took", seconds(report["wall_s"])
        yield "of that, until the first item", seconds(report.get("load_s", 0.0))
    parts = sections_of(report)
    for name, part in parts.items():
        units = part.get("units") or {}
        told = f"{units.get('done', 0)} {units.get('name', '')}, {units.get('failed', 0)} failed"
        prefix = f"section {name}: " if len(parts) > 1 else ""
        yield f"{prefix}done", f"{told}, in {seconds(part.get('run_s', 0.0))}"
    if resumed := report.get("resumed"):
        yield "taken over from earlier runs", f"{resumed.get('items', 0)} items"
    if residency := report.get("residency"):
        yield "models in memory", f"{residency.get('mode')}: {residency.get('why')}"
        yield "model switches", residency.get("switches", 0)
        yield "switching took", seconds(residency.get("switch_s", 0.0))
    yield from work_done(report, edits)


def work_done(report: Report, edits: Sequence[Report]) -> Iterator[tuple[str, object]]:
    """Yield what the editing came to; rates only where it was all done by this run."""
    done = [each for each in edits if not each.get("reason")]
    if not done:
        return
    steps, passes = (sum(each.get(key, 0) for each in done) for key in ("steps", "passes"))
    tflop = float(sum(each.get("tflop", 0.0) for each in done))
    yield "edits", len(done)
    yield "denoising steps", steps
    yield "transformer passes", passes
    if not tflop:
        return
    yield "work", f"{_digits(tflop)} TFLOP"
    editors = [(name, worker) for name, worker in workers_of(report) if _is_editor(worker)]
    busy = sum(worker.get("busy_s", 0.0) for _, worker in editors)
    taken_over = any((part.get("resumed") or {}).get("items") for part in _every(report))
    if taken_over:
        yield "sustained", "not known: a part of the edits is of an earlier run"
    elif busy:
        yield "sustained while editing", f"{_digits(tflop / busy)} TFLOP/s a worker"
        names = {name for name, _ in editors}
        span = max(sections_of(report)[name].get("run_s", 0.0) for name in names)
        if span:
            yield "sustained over the section", f"{_digits(tflop / span)} TFLOP/s in all"


def _digits(value: float) -> str:
    """Return a number with at least three digits that say something."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _every(report: Report) -> list[Report]:
    return [report, *sections_of(report).values()]


def _is_editor(worker: Report) -> bool:
    return any(_EDIT in str(stage) for stage in worker.get("stages", ()))


def _workers(report: Report) -> Markup:
    rows = [
        (
            worker.get("name"),
            name,
            worker.get("device"),
            worker.get("items", 0),
            seconds(worker.get("busy_s", 0.0)),
            _share(worker.get("busy_s", 0.0), sections_of(report)[name].get("run_s")),
            _percent(worker.get("gpu_utilization")),
            _bytes(worker.get("gpu_peak_bytes")),
            _bytes(worker.get("max_rss_bytes")),
            worker.get("restarts", 0),
        )
        for name, worker in workers_of(report)
    ]
    header = ("worker", "section", "device", "items", "busy", "share of its section", "GPU busy")
    more = ("peak GPU memory", "peak host memory", "restarts")
    return table("Workers", (*header, *more), rows, kind="workers")


def _warnings(report: Report) -> Markup:
    told = [str(each) for part in _every(report) for each in part.get("warnings", ())]
    reasons = [
        f"{each.get('stage') or 'run'}: {each.get('reason', '')}"
        for part in _every(report)
        for each in part.get("failures", ())
    ]
    lines = "".join(f"<li>{said(text)}</li>" for text in dict.fromkeys((*told, *reasons)))
    return Markup(f"<h3>Warnings and failures</h3><ul>{lines}</ul>") if lines else Markup("")


def repeat_part(metadata: Mapping[str, Any], report: Report, edits: Sequence[Report]) -> Markup:
    """Return everything that one needs to do it again."""
    content = [pairs("How it was scored", [(key, _plain(v)) for key, v in metadata.items()])]
    seeds = sorted({each["seed"] for each in edits if each.get("seed")})
    if seeds:
        sizes = sorted({tuple(each.get("edited", (0, 0))) for each in edits} - {(0, 0)})
        content.append(
            pairs(
                "How it was edited",
                [
                    ("seeds", f"{len(seeds)} seeds, one a sample; edits.jsonl has them"),
                    ("steps a sample", _distinct(edits, "steps")),
                    ("transformer passes a sample", _distinct(edits, "passes")),
                    ("sizes", ", ".join(f"{w} x {h}" for h, w in sizes[:20])),
                ],
            )
        )
    if report:
        content.append(pairs("What ran", _surroundings(report)))
    return section("repeat", "To repeat it", *content)


def _surroundings(report: Report) -> Iterator[tuple[str, object]]:
    yield "input", report.get("input")
    yield "output", report.get("output")
    for name, part in sections_of(report).items():
        config = part.get("config") or report.get("config") or {}
        yield f"configuration of {name}", config.get("path") or "made in Python"
        yield f"its hash (SHA-256) of {name}", config.get("sha256")
        for weights in part.get("weights", ()):
            yield f"weights of {name}", weights
        for key, value in (part.get("fingerprint") or {}).items():
            yield f"{name}: {key}", _short(value)
    for name, version in (report.get("versions") or {}).items():
        yield f"version of {name}", version
    host = report.get("host") or {}
    if host:
        yield "host", f"{host.get('cores')} cores, kernel {host.get('kernel')}"
        yield (
            "GPUs",
            ", ".join(str(each.get("name", each)) for each in host.get("gpus", ())) or None,
        )


def _plain(value: object) -> str | None:
    """Return a value as one would write it into a configuration."""
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value))
    return None if value is None else str(value)


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= 400 else f"{text[:400]} ... ({len(text)} characters)"


def _distinct(edits: Sequence[Report], key: str) -> str:
    return ", ".join(map(str, sorted({each[key] for each in edits if each.get(key)})))


def _share(busy_s: float, run_s: float | None) -> str:
    return _percent(busy_s / run_s if run_s else None)


def _percent(share: float | None) -> str:
    return Markup(NONE) if share is None else f"{number(100 * share, 0)} %"


def _bytes(value: int | None) -> str:
    return nbytes(value) if value else Markup(NONE)
