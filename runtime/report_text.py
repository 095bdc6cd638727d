"""A report as people read it (`runpipe report`)."""

from __future__ import annotations

from collections.abc import Iterator

from runtime.cli_table import nbytes_text, seconds_text, table
from runtime.report import Failure, Report, WorkerReport

_NONE = "-"


def describe_report(report: Report) -> str:
    """Return what a run did: head, workers, links, failures."""
    return "\n".join(
        [
            *_head(report),
            *_under("", _workers(report)),
            *_under("", _links(report)),
            *_under("failures", [line for one in report.failures for line in _failure(one)]),
        ]
    )


def _head(report: Report) -> list[str]:
    host = report.host
    gpus = f", {len(host.gpus)} x {host.gpus[0].name}" if host and host.gpus else ""
    config = report.config.path if report.config else ""
    facts = {
        "status": report.status,
        "pipeline": report.pipeline + (f" ({config})" if config else ""),
        "started": report.started_at,
        "time": f"{seconds_text(report.wall_s)}: {seconds_text(report.load_s)} until the first "
        f"item, {seconds_text(report.run_s)} from then on",
        "input": report.input,
        "output": report.output,
        "done": f"{report.units.done} {report.units.name}, {_rate(report)}".strip(", "),
        "items": _items(report),
        "resumed": _resumed(report),
        "models": _residency(report),
        "counted": ", ".join(_counted(report)),
        "host": f"{host.hostname}: {host.cores} cores{gpus}" if host else "",
        "versions": ", ".join(f"{name} {version}" for name, version in report.versions.items()),
    }
    lines = [f"{name:10}{fact}" for name, fact in facts.items() if fact]
    remarks = {"weights": report.weights, "warning": report.warnings, "changed": report.changed}
    return lines + [f"{name:10}{remark}" for name, said in remarks.items() for remark in said]


def _counted(report: Report) -> Iterator[str]:
    for name, number in report.counts.items():
        if name != report.units.name:
            yield f"{number} {name.removesuffix('s') if number == 1 else name}"


def _rate(report: Report) -> str:
    rate = report.warm_units_per_s
    return f"{rate:.1f} a second after the first item" if rate else ""


def _items(report: Report) -> str:
    items = report.items
    parts = {"done": items.done, "failed": items.failed, "replayed": items.replayed}
    return ", ".join(f"{number} {name}" for name, number in parts.items())


def _residency(report: Report) -> str:
    if report.residency is None:
        return ""
    kept = report.residency
    told = f"{kept.mode}: {kept.why}"
    if kept.switches:
        told += f"; {kept.switches} switches in {seconds_text(kept.switch_s)}"
    return told


def _resumed(report: Report) -> str:
    if report.resumed is None:
        return ""
    items, runs = report.resumed.items, report.resumed.runs
    return f"{items} items were durable after {runs} earlier run{'s' if runs > 1 else ''}"


def _workers(report: Report) -> list[str]:
    head = "worker,device,items,busy,CPU user,CPU system,memory,GPU,GPU memory,restarts"
    rows = [_worker(worker, report.run_s) for worker in report.workers]
    return table(head.split(","), rows, right=head.partition("device,")[2]) if rows else []


def _worker(worker: WorkerReport, run_s: float) -> list[str]:
    return [
        worker.name,
        worker.device,
        str(worker.items),
        f"{100 * worker.busy_s / run_s:.0f} %" if run_s else _NONE,
        seconds_text(worker.cpu_user_s),
        seconds_text(worker.cpu_system_s),
        nbytes_text(worker.max_rss_bytes) if worker.max_rss_bytes else _NONE,
        _NONE if worker.gpu_utilization is None else f"{100 * worker.gpu_utilization:.0f} %",
        nbytes_text(worker.gpu_peak_bytes) if worker.gpu_peak_bytes else _NONE,
        str(worker.restarts),
    ]


def _links(report: Report) -> list[str]:
    head = "link,transport,items,bytes,waited"
    rows = [
        [
            f"{link.sender} -> {link.receiver}",
            link.transport,
            str(link.items),
            nbytes_text(link.bytes),
            seconds_text(link.wait_s),
        ]
        for link in report.links
    ]
    return table(head.split(","), rows, right="items,bytes,waited") if rows else []


def _failure(failure: Failure) -> Iterator[str]:
    places = {
        "section": failure.section,
        "item": failure.item,
        "stage": failure.stage,
        "worker": failure.worker,
    }
    known = [f"{name} {place}" for name, place in places.items() if place not in (None, "")]
    yield f"  {', '.join(known)}: {failure.reason}" if known else f"  {failure.reason}"
    yield from (f"    {line}" for line in failure.traceback.splitlines())


def _under(title: str, lines: list[str]) -> list[str]:
    return ["", *filter(None, [title]), *lines] if lines else []
