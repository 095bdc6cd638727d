"""`runpipe doctor`: what this machine offers, and what may stand in the way."""

from __future__ import annotations

import click

from runtime.commands.options import HELP_NAMES


@click.command(context_settings=HELP_NAMES)
@click.option("--json", "as_json", is_flag=True, help="Print it as JSON. Default: a table.")
@click.option(
    "--links/--no-links",
    default=True,
    help="Measure how fast GPUs reach each other. Takes a few seconds, and opens each GPU twice "
    "for a moment, about 0.6 GiB each. Default: measure, where there are GPUs.",
)
def doctor(as_json: bool, links: bool) -> None:
    """Say what this machine offers to pipelines.

    GPUs and which of them reach each other, limits, versions, and what each configuration of
    configs/ could use here. Links between GPUs are tried, with processes on each of them: do they
    work, how fast do 64 MiB get across, and how long does an item of 1 MiB take there and back?

    \b
    runpipe doctor
    runpipe doctor --no-links
    runpipe doctor --json
    """
    from runtime.doctor import examine
    from runtime.doctor_text import describe_checkup

    checkup = examine(with_links=links)
    if as_json:
        import msgspec

        click.echo(msgspec.json.format(msgspec.json.encode(checkup), indent=2))
    else:
        click.echo(describe_checkup(checkup))
