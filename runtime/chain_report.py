"""What a run in sections writes when all of them have ended: report, trace, page."""

from __future__ import annotations

import logging
from pathlib import Path

from runtime.config import PipelineConfig
from runtime.errors import RunpipeError
from runtime.joined import join_traces
from runtime.page import make_page
from runtime.report import Report, load_report, write_report

logger = logging.getLogger(__name__)

REPORT = "report.json"


def write_all(
    report: Report,
    config: PipelineConfig,
    output: Path,
    run_dir: Path,
    error: BaseException | None,
) -> bool:
    """Write what there is; return whether; `error` of the run would be the worse news.

    Raises:
        RunpipeError: the report cannot be written, and the run had no error.
    """
    try:
        join_traces(run_dir, list(report.sections))
        write_report(run_dir / REPORT, report)
    except OSError as problem:
        why = f"{problem.filename}: cannot be written: {problem.strerror}"
        if error is None:
            raise RunpipeError(why) from problem
        logger.error("no report: %s", why)
        return False
    if config.page and (why := make_page(config.page, output, run_dir)):
        logger.warning("%s", why)
    return True


def write_surely(
    report: Report,
    config: PipelineConfig,
    output: Path,
    run_dir: Path,
    error: BaseException | None,
) -> bool:
    """Do what `write_all` does, once more if it is interrupted: it must be there."""
    try:
        return write_all(report, config, output, run_dir, error)
    except KeyboardInterrupt:
        return write_all(report, config, output, run_dir, error)


def told_before(report: Report, run_dir: Path) -> Report | None:
    """Return the report of an earlier run that says the same; None: there is none."""
    try:
        written = load_report(run_dir / REPORT)
    except RunpipeError:  # killed before it was written
        return None
    is_same = (written.status, written.items) == (report.status, report.items)
    return written if is_same else None
