"""`runpipe doctor`: what this machine offers, and what may stand in the way."""

from __future__ import annotations

import click

from runtime.commands.options import HELP_NAMES


@click.command(context_settings=HELP_NAMES)
@click.option("--json", "as_json", is_flag=True, help="Print it as JSON. Default: a table.")
def doctor(as_json: bool) -> None:
    """Say what this machine offers to pipelines.

    GPUs and which of them reach each other, limits, versions, and what each configuration of
    configs/ could use here.

    \b
    runpipe doctor
    runpipe doctor --json
    """
    from runtime.doctor import examine
    from runtime.doctor_text import describe_checkup

    checkup = examine()
    if as_json:
        import msgspec

        click.echo(msgspec.json.format(msgspec.json.encode(checkup), indent=2))
    else:
        click.echo(describe_checkup(checkup))
