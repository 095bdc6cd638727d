"""What plain `runpipe --config X` does: run a pipeline, or print where it would run."""

from __future__ import annotations

import gc
import shlex
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

import click

from runtime.config_files import shown
from runtime.errors import ConfigError, RunIncomplete, RunpipeError

if TYPE_CHECKING:
    from runtime.chain import Chain
    from runtime.config import PipelineConfig
    from runtime.live import Shown
    from runtime.pipeline import Pipeline
    from runtime.report import Report


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRequest:
    """What was asked for on the command line."""

    config: str | None  # None: that of the run that is resumed
    overrides: tuple[str, ...]
    source: str | None
    output: str | None
    overwrite: bool
    run_dir: str | None
    resume: str | None  # a run directory
    force: bool
    verbosity: int
    quiet: bool


def show_plan(request: RunRequest) -> None:
    """Print workers, pools and links; run nothing."""
    import tempfile

    from runtime.pipelines import open_pipeline
    from runtime.plan_text import describe_plans

    config = _load(request)
    with ExitStack() as stack:
        logs = stack.enter_context(tempfile.TemporaryDirectory(prefix="runpipe-"))
        pipeline = open_pipeline(config, verbosity=request.verbosity)
        stack.enter_context(pipeline)
        plans = pipeline.plans(run_dir=logs, input=request.source, output=request.output)
        click.echo(describe_plans(plans))


def run_and_tell(request: RunRequest) -> None:
    """Run; then say in one line what was done."""
    from runtime.report import summary_line

    report, is_new = _run(request, on_failure=lambda _folder: None)
    told = f"{request.resume}: is done already: {shown(Path(report.output))} is as it was"
    if not request.quiet:
        click.echo(summary_line(report) if is_new else told)


def run_and_print_report(request: RunRequest) -> None:
    """Run; then print the report as JSON, and nothing else, also of a run that failed."""
    import msgspec

    report, _is_new = _run(request, on_failure=_print_report)
    click.echo(msgspec.json.format(msgspec.json.encode(report), indent=2))


def _load(request: RunRequest) -> PipelineConfig:
    from runtime.commands.constructors import check_stages
    from runtime.config import load_config
    from runtime.stored import load_run_config

    if request.config is not None:
        config = load_config(request.config, request.overrides)
    else:
        assert request.resume is not None, "one of them is given"
        config = load_run_config(Path(request.resume), request.overrides)
    check_stages(config)  # the workers would say the same, some seconds later
    gc.enable()  # which `main` has put off: what follows goes on for long
    return config


def _run(request: RunRequest, *, on_failure: Callable[[Path], None]) -> tuple[Report, bool]:
    """Run, or go on; return the report, and whether there was anything to do."""
    from runtime.account import weights_notes
    from runtime.pipelines import open_pipeline
    from runtime.terminal import Terminal
    from runtime.view import RunView

    config = _load(request)
    with ExitStack() as stack:
        terminal = stack.enter_context(Terminal())
        pipeline = open_pipeline(config, verbosity=request.verbosity, terminal=terminal)
        stack.enter_context(pipeline)
        stack.enter_context(drained_by_ctrl_c(pipeline.drain, terminal.say))
        for note in weights_notes(config):
            terminal.say(f"runpipe: {note}")

        def show(live: Shown) -> None:
            if not request.quiet:
                terminal.show(RunView(live))

        try:
            report = _call(pipeline, request, show)
        except RunpipeError as error:
            stack.close()  # nothing is drawn any more
            _add_way_on(error, pipeline)
            if pipeline.run_dir and pipeline.has_report:
                on_failure(pipeline.run_dir)
            raise
        return report, pipeline.has_report


def _call(pipeline: Pipeline | Chain, request: RunRequest, show: Callable[[Shown], None]) -> Report:
    if request.resume is not None:
        return pipeline.resume(
            request.resume,
            input=request.source,
            output=request.output,
            overwrite=request.overwrite,
            force=request.force,
            on_start=show,
        )
    return pipeline.run(
        input=request.source,
        output=request.output,
        overwrite=request.overwrite,
        run_dir=request.run_dir,
        on_start=show,
    )


def _add_way_on(error: RunpipeError, pipeline: Pipeline | Chain) -> None:
    """Say where the run that failed is told of, and how to go on with it."""
    if pipeline.run_dir is None:
        return
    name = shlex.quote(shown(pipeline.run_dir))
    if pipeline.has_report:
        error.add_note(f"see `runpipe report {name}`")
    is_mended_first = isinstance(error, ConfigError) and not pipeline.has_report
    if pipeline.has_begun and not is_mended_first and not isinstance(error, RunIncomplete):
        error.add_note(f"go on with `runpipe --resume {name}`")


@contextmanager
def drained_by_ctrl_c(drain: Callable[[], bool], say: Callable[[str], None]) -> Iterator[None]:
    """Let the first Ctrl-C of this block drain the run, where there is something to wait for.

    The second is handled as all were before. So is every one outside of Python's main thread.

    Args:
        drain: returns whether there is.
        say: is given a line for the user; it must not wait.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGINT)

    def first(signum: int, frame: FrameType | None) -> None:
        signal.signal(signal.SIGINT, before)
        if drain():
            say("runpipe: finishing what is under way; Ctrl-C again stops at once")
        elif callable(before):
            before(signum, frame)

    signal.signal(signal.SIGINT, first)
    try:
        yield
    finally:
        if signal.getsignal(signal.SIGINT) is first:
            signal.signal(signal.SIGINT, before)


def _print_report(folder: Path) -> None:
    click.echo((folder / "report.json").read_text(), nl=False)
