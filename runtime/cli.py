"""The command line: parse, call one function, turn exceptions into one line and an exit code."""

from __future__ import annotations

import signal
import sys
import tempfile
from contextlib import ExitStack
from types import FrameType

import click

from runtime.errors import ConfigError, RunInterrupted, RunpipeError, Terminated

EXIT_OK, EXIT_FAILED, EXIT_USAGE = 0, 1, 2  # 128 + signal when interrupted; click exits with 2


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--config", required=True, metavar="NAME_OR_PATH", help="A YAML file, or a name in configs/."
)
@click.option("--input", "source", metavar="FILE", help="Instead of the configuration's `input`.")
@click.option("--output", metavar="FILE", help="Instead of the configuration's `output`.")
@click.option(
    "--set",
    "overrides",
    multiple=True,
    metavar="KEY=VALUE",
    help="Override one value, such as video.pairs=4; may be given again.",
)
@click.option("--overwrite", is_flag=True, help="Replace an output that exists.")
@click.option("--dry-run", is_flag=True, help="Print where everything would run, and run nothing.")
@click.option(
    "--run-dir", metavar="DIR", help="For report, journal and logs; by default a new one in runs/."
)
@click.option("-v", "--verbose", "verbosity", count=True, help="Tell more; -vv tells of each item.")
def run(
    config: str,
    source: str | None,
    output: str | None,
    overrides: tuple[str, ...],
    overwrite: bool,
    dry_run: bool,
    run_dir: str | None,
    verbosity: int,
) -> int:
    """Run a staged diffusion pipeline: one process per stage, on one host with several GPUs.

    \b
    runpipe --config demo.yaml
    runpipe --config single_gpu.yaml --input in.mp4 --output out.mp4
    """
    from runtime.config import load_config
    from runtime.pipeline import Pipeline
    from runtime.plan_text import describe_plan
    from runtime.progress import ProgressLine
    from runtime.report import summary_line
    from runtime.run import weights_notes

    loaded = load_config(config, overrides)
    with ExitStack() as stack:
        pipeline = stack.enter_context(Pipeline(loaded, verbosity=verbosity))
        if dry_run:
            logs = stack.enter_context(tempfile.TemporaryDirectory(prefix="runpipe-"))
            opened = pipeline.plan(run_dir=logs, input=source, output=output)
            click.echo(describe_plan(opened))
            return EXIT_OK
        for note in weights_notes(loaded):
            click.echo(f"runpipe: {note}", err=True)
        progress = stack.enter_context(ProgressLine())
        report = pipeline.run(
            input=source,
            output=output,
            overwrite=overwrite,
            run_dir=run_dir,
            on_start=progress.show,
        )
    for warning in report.warnings:
        click.echo(f"runpipe: warning: {warning}", err=True)
    click.echo(summary_line(report))
    return EXIT_OK


def _interrupt(signum: int, _frame: FrameType | None) -> None:
    """Unwind once; what follows is bounded, and a second signal must not cut it short."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise Terminated if signum == signal.SIGTERM else KeyboardInterrupt


def main() -> int:
    """Run the command line and return its exit code."""
    signal.signal(signal.SIGINT, _interrupt)
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        return int(run.main(prog_name="runpipe", standalone_mode=False) or EXIT_OK)
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except ConfigError as error:
        return _say(error, EXIT_USAGE)
    except RunInterrupted as error:
        return _say(error, 128 + error.signum)
    except RunpipeError as error:
        return _say(error, EXIT_FAILED)


def _say(error: Exception, code: int) -> int:
    click.echo(f"runpipe: {error}", err=True)
    return code


if __name__ == "__main__":
    sys.exit(main())
