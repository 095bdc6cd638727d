"""`runpipe schema`: what editors need to help with a configuration."""

from __future__ import annotations

import click

from runtime.commands.options import HELP_NAMES


@click.command(context_settings=HELP_NAMES)
def schema() -> None:
    """Print the JSON Schema of a configuration.

    Editors with a YAML language server complete and check a file that starts with
    `# yaml-language-server: $schema=PATH`, as those in configs/ do.

    \b
    runpipe schema
    runpipe schema > schema.json
    """
    from runtime.schema import config_schema

    click.echo(config_schema(), nl=False)
