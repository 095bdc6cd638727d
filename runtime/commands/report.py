"""`runpipe report`: what a run did."""

from __future__ import annotations

from pathlib import Path

import click

from runtime.commands.options import HELP_NAMES
from runtime.errors import ConfigError, RunpipeError


@click.command(context_settings=HELP_NAMES)
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
@click.option(
    "--json", "as_json", is_flag=True, help="Print report.json as it is. Default: a table."
)
def report(folder: Path, as_json: bool) -> None:
    """Print what the run in DIR did.

    DIR is a run directory, such as those in runs/.

    \b
    runpipe report runs/20250301-100000-interpolate
    runpipe report --json runs/20250301-100000-interpolate
    """
    from runtime.report import load_report
    from runtime.report_text import describe_report

    if not folder.exists():
        raise ConfigError(f"{folder}: there is no such run directory")
    path = folder / "report.json" if folder.is_dir() else folder
    if not path.exists():
        raise ConfigError(f"{folder}: has no report.json: no run directory, or its run goes on")
    try:
        loaded = load_report(path)
    except RunpipeError as error:
        raise ConfigError(str(error)) from error
    click.echo(path.read_text() if as_json else describe_report(loaded), nl=not as_json)
