"""The command line: parse, call one function, turn exceptions into one line and an exit code.

Importing it and what it imports must stay cheap: `--help` answers at once. A command imports what
it needs when it is called.
"""

from __future__ import annotations

import gc
import json
import re
import signal
import sys
from collections.abc import Mapping
from types import FrameType
from typing import TYPE_CHECKING, Any

import click

from runtime.commands.group import Commands, refuse_options_before_command
from runtime.commands.options import HELP_NAMES, VARIABLE, config_option, set_option
from runtime.config_files import PROJECT
from runtime.errors import ConfigError, RunInterrupted, RunpipeError, Terminated

if TYPE_CHECKING:
    from runtime.commands.run import RunRequest

EXIT_OK, EXIT_FAILED, EXIT_USAGE = 0, 1, 2  # 128 + signal when interrupted; click exits with 2


def _print_version(context: click.Context, _option: click.Parameter, is_asked: bool) -> None:
    if is_asked and not context.resilient_parsing:
        found = re.search(r"^version *= *(\S+)", (PROJECT / "setup.cfg").read_text(), re.MULTILINE)
        version = found[1] if found else "of unknown version"
        click.echo(f"runpipe {version}, Python {sys.version.split()[0]}")
        context.exit()


@click.group(
    cls=Commands,
    invoke_without_command=True,
    context_settings={**HELP_NAMES, "max_content_width": 100},
)
@config_option
@click.option(
    "--input",
    "source",
    metavar="FILE",
    help="What to read. Default: the configuration's `input`.",
)
@click.option(
    "--output", metavar="FILE", help="What to write. Default: the configuration's `output`."
)
@set_option
@click.option(
    "--seed",
    type=click.IntRange(min=0),
    metavar="N",
    help="Of all random numbers, as --set run.seed=N. Default: the configuration's, else 0.",
)
@click.option(
    "--only",
    metavar="SECTION",
    help="Run one section of a pipeline that has several, as --set run.only=SECTION: of "
    "edit_score, `edits` or `results`. Default: all.",
)
@click.option(
    "--categories",
    multiple=True,
    metavar="NAME ...",
    help="Of a benchmark, only the samples of these, as --set samples.categories=[NAME, ...]. "
    "Default: all.",
)
@click.option(
    "--limit",
    type=click.IntRange(min=1),
    metavar="N",
    help="Of a benchmark, only the first N samples, as --set samples.limit=N. Default: all.",
)
@click.option(
    "--strict",
    is_flag=True,
    help="Refuse to run where the plan has to be bent to fit, as with fewer GPUs than asked for. "
    "Default: warn, and run.",
)
@click.option("--overwrite", is_flag=True, help="Replace an output that exists. Default: refuse.")
@click.option(
    "--dry-run",
    is_flag=True,
    help="Print where everything would run; load and run nothing. Default: run.",
)
@click.option(
    "--run-dir",
    metavar="DIR",
    help="For report, journal, logs and unfinished work. Default: a new folder in runs/.",
)
@click.option(
    "--resume",
    metavar="DIR",
    help="Go on with the run in DIR, however it ended; what is durable there is not done again. "
    "Configuration, input and output are those of that run; given too, they must agree. Default: "
    "a new run.",
)
@click.option(
    "--force",
    is_flag=True,
    help="With --resume: go on although configuration, input or code have changed, and anew where "
    "the journal is damaged. Default: refuse.",
)
@click.option(
    "--json",
    "as_json",
    is_flag=True,
    help="Print the report as JSON at the end, and nothing else, on stdout; progress stays on "
    "stderr. Default: one line.",
)
@click.option(
    "-q",
    "--quiet",
    is_flag=True,
    help="Show no progress and no summary, only warnings and errors. Default: a table of the "
    "workers where stderr is a terminal, else a line every 5 s.",
)
@click.option(
    "-v",
    "--verbose",
    "verbosity",
    count=True,
    help="Tell of the run's life; -vv of each item. Default: warnings only.",
)
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_print_version,
    help="Print the version and exit.",
)
@click.pass_context
def runpipe(context: click.Context, /, **options: Any) -> None:  # noqa: ANN401 - click's
    """Run a staged diffusion pipeline: one process per stage, on one host with several GPUs.

    \b
    runpipe --config demo.yaml
    runpipe --config demo --set video.crf=10 --seed 7 --overwrite
    runpipe --config single_gpu --input in.mp4 --output out.mp4
    runpipe --config dual_gpu --input in.mp4 --output out.mp4 --dry-run
    runpipe --resume runs/20250301-100000-interpolate
    """
    if context.invoked_subcommand:
        refuse_options_before_command(context)
        return
    if why_not := _contradiction(options):
        context.fail(why_not)
    from runtime.commands.run import run_and_print_report, run_and_tell, show_plan

    is_dry, as_json = options["dry_run"], options["as_json"]
    act = show_plan if is_dry else run_and_print_report if as_json else run_and_tell
    act(_request(options))


def _request(options: Mapping[str, Any]) -> RunRequest:
    from runtime.commands.run import RunRequest

    short = {
        "run.strict": options["strict"] or None,
        "run.seed": options["seed"],
        "run.only": options["only"],
        "samples.categories": list(options["categories"]) or None,
        "samples.limit": options["limit"],
    }
    asked = [f"{key}={json.dumps(value)}" for key, value in short.items() if value is not None]
    return RunRequest(
        config=options["config"],
        overrides=(*options["overrides"], *asked),
        source=options["source"],
        output=options["output"],
        overwrite=options["overwrite"],
        run_dir=options["run_dir"],
        resume=options["resume"],
        force=options["force"],
        verbosity=options["verbosity"],
        quiet=options["quiet"],
    )


def _contradiction(options: Mapping[str, Any]) -> str:
    """Return why these options do not go together; "" = they do."""
    is_resumed = options["resume"] is not None
    if options["config"] is None and not is_resumed:
        return "--config is missing: say what to run, such as `runpipe --config demo`"
    if options["dry_run"] and options["as_json"]:
        return "--json prints the report of a run, and --dry-run runs nothing; drop one"
    if options["dry_run"] and is_resumed:
        return "--dry-run plans a new run, and --resume goes on with one; drop one"
    if options["run_dir"] is not None and is_resumed:
        return "--resume names the run directory already; drop --run-dir"
    if options["force"] and not is_resumed:
        return "--force goes with --resume; an output is replaced with --overwrite"
    return ""


def _interrupt(signum: int, _frame: FrameType | None) -> None:
    """Unwind once; what follows is bounded, and a second signal must not cut it short."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise Terminated if signum == signal.SIGTERM else KeyboardInterrupt


def main() -> int:
    """Run the command line of this process and return its exit code.

    Garbage is not collected, not even at exit: imports and a short answer make next to none, and
    looking for it takes a tenth of the time. A run switches it on again.
    """
    signal.signal(signal.SIGINT, _interrupt)
    signal.signal(signal.SIGTERM, _interrupt)
    gc.disable()
    try:
        return answer(sys.argv[1:])
    finally:
        gc.freeze()


def answer(arguments: list[str]) -> int:
    """Do what the arguments say and return the exit code."""
    try:
        code = runpipe.main(arguments, "runpipe", complete_var=VARIABLE, standalone_mode=False)
        return int(code or EXIT_OK)
    except click.ClickException as error:
        return _say(_usage(error), error.exit_code)
    except click.Abort as error:  # click's word for KeyboardInterrupt, before a run has begun
        is_terminated = isinstance(error.__cause__, Terminated)
        signum = signal.SIGTERM if is_terminated else signal.SIGINT
        return _say(f"interrupted by {signum.name}", 128 + signum)
    except ConfigError as error:
        return _say(_with_notes(error), EXIT_USAGE)
    except RunInterrupted as error:
        return _say(_with_notes(error), 128 + error.signum)
    except RunpipeError as error:
        return _say(_with_notes(error), EXIT_FAILED)


def _usage(error: click.ClickException) -> str:
    context = error.ctx if isinstance(error, click.UsageError) else None
    path = context.command_path if context else "runpipe"
    return f"{error.format_message()} (see `{path} --help`)"


def _with_notes(error: RunpipeError) -> str:
    return "; ".join([str(error), *getattr(error, "__notes__", ())])


def _say(text: str, code: int) -> int:
    click.echo(f"runpipe: {text}", err=True)
    return code


if __name__ == "__main__":
    sys.exit(main())
