"""A run that is resumed, and was done already: what there is to say, and nothing to do."""

from __future__ import annotations

from pathlib import Path

from runtime.account import weights_notes
from runtime.config import PipelineConfig
from runtime.earlier import Earlier
from runtime.errors import RunIncomplete, RunpipeError
from runtime.journal import DoneItems
from runtime.report import (
    Failure,
    ItemCounts,
    Report,
    ResumedReport,
    UnitCounts,
    incomplete_text,
    load_report,
    write_report,
)
from stages.output import is_published, note

REPORT = "report.json"
MAX_FAILURES = 100


def finished_report(earlier: Earlier, folder: Path, config: PipelineConfig) -> Report | None:
    """Return the report of a run whose output has its name already; None if it has not.

    Where the run was killed before it could write the report it is written now, with what the
    journal tells.

    Raises:
        RunIncomplete: the output is there, without the items that failed.
        RunpipeError: the report cannot be written.
    """
    if earlier.journal is None or not is_published(Path(earlier.stored.output), folder):
        return None
    report = _from_journal(earlier, earlier.journal.recorded(), config)
    written = _written(folder / REPORT)
    if written and (written.status, written.items) == (report.status, report.items):
        report = written
    else:
        try:
            write_report(folder / REPORT, report)
        except OSError as error:
            raise RunpipeError(f"{folder / REPORT}: cannot be written: {error.strerror}") from error
    if report.status == "failed":
        raise RunIncomplete(f"{incomplete_text(report)}; nothing is left to do")
    return report


def note_output(output: Path, folder: Path) -> None:
    """Note what the output is, where the sink has not: a later run is to know it again."""
    if output.exists() and not is_published(output, folder):
        note(output, output, folder)


def _written(path: Path) -> Report | None:
    try:
        return load_report(path)
    except RunpipeError:  # none, or of no use
        return None


def _from_journal(earlier: Earlier, done: DoneItems, config: PipelineConfig) -> Report:
    work = earlier.before.get("work", {})
    assert isinstance(work, dict), "this journal was written by `Run`"
    failures = [Failure(reason=work["broken"])] if work["broken"] else []
    for item, why in sorted(done.failed.items())[:MAX_FAILURES]:
        failures.append(Failure(reason=why, item=item, stage=why.partition(":")[0]))
    return Report(
        status="failed" if failures else "done",
        pipeline=config.pipeline,
        items=ItemCounts(done=len(done) - len(done.failed), failed=len(done.failed)),
        units=UnitCounts(name=work["unit"], done=done.units, failed=work["num_units"] - done.units),
        input=earlier.stored.input,
        output=earlier.stored.output,
        counts=dict(done.counts),
        weights=tuple(weights_notes(config)),
        failures=tuple(failures),
        fingerprint={part: value for part, value in earlier.before.items() if part != "config"},
        resumed=ResumedReport(items=len(done), runs=earlier.stored.num_runs),
    )
