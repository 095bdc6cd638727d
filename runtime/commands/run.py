"""What plain `runpipe --config X` does: run a pipeline, or print where it would run."""

from __future__ import annotations

import gc
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from runtime.config_files import shown
from runtime.errors import RunpipeError

if TYPE_CHECKING:
    from runtime.config import PipelineConfig
    from runtime.live import Live
    from runtime.report import Report


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRequest:
    """What was asked for on the command line."""

    config: str
    overrides: tuple[str, ...]
    source: str | None
    output: str | None
    overwrite: bool
    run_dir: str | None
    verbosity: int
    quiet: bool


def show_plan(request: RunRequest) -> None:
    """Print workers, pools and links; run nothing."""
    import tempfile

    from runtime.pipeline import Pipeline
    from runtime.plan_text import describe_plan

    config = _load(request)
    with ExitStack() as stack:
        logs = stack.enter_context(tempfile.TemporaryDirectory(prefix="runpipe-"))
        pipeline = stack.enter_context(Pipeline(config, verbosity=request.verbosity))
        opened = pipeline.plan(run_dir=logs, input=request.source, output=request.output)
        click.echo(describe_plan(opened))


def run_and_tell(request: RunRequest) -> None:
    """Run; then say in one line what was done."""
    from runtime.report import summary_line

    report = _run(request, on_failure=lambda _folder: None)
    if not request.quiet:
        click.echo(summary_line(report))


def run_and_print_report(request: RunRequest) -> None:
    """Run; then print the report as JSON, and nothing else, also of a run that failed."""
    import msgspec

    report = _run(request, on_failure=_print_report)
    click.echo(msgspec.json.format(msgspec.json.encode(report), indent=2))


def _load(request: RunRequest) -> PipelineConfig:
    from runtime.commands.constructors import check_stages
    from runtime.config import load_config

    config = load_config(request.config, request.overrides)
    check_stages(config)  # the workers would say the same, some seconds later
    gc.enable()  # which `main` has put off: what follows goes on for long
    return config


def _run(request: RunRequest, *, on_failure: Callable[[Path], None]) -> Report:
    from runtime.account import weights_notes
    from runtime.pipeline import Pipeline
    from runtime.terminal import Terminal
    from runtime.view import RunView

    config = _load(request)
    with ExitStack() as stack:
        terminal = stack.enter_context(Terminal())
        pipeline = stack.enter_context(
            Pipeline(config, verbosity=request.verbosity, terminal=terminal)
        )
        for note in weights_notes(config):
            terminal.say(f"runpipe: {note}")

        def show(live: Live) -> None:
            if not request.quiet:
                terminal.show(RunView(live))

        try:
            report = pipeline.run(
                input=request.source,
                output=request.output,
                overwrite=request.overwrite,
                run_dir=request.run_dir,
                on_start=show,
            )
        except RunpipeError as error:
            stack.close()  # nothing is drawn any more
            folder = pipeline.run_dir
            if folder and (folder / "report.json").exists():
                error.add_note(f"see `runpipe report {shown(folder)}`")
                on_failure(folder)
            raise
    return report


def _print_report(folder: Path) -> None:
    click.echo((folder / "report.json").read_text(), nl=False)
