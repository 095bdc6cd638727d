"""`runpipe check`: is this configuration right?"""

from __future__ import annotations

import click

from runtime.commands.options import HELP_NAMES, needed_config_option, set_option


@click.command(context_settings=HELP_NAMES)
@needed_config_option
@set_option
def check(config: str, overrides: tuple[str, ...]) -> None:
    """Validate a configuration, and start nothing.

    Shape, names and values are checked, that every stage exists, and that it takes the keywords
    it is given. What only a run can find out is left to that, such as an input that is no video.

    \b
    runpipe check --config demo
    runpipe check --config mine.yaml --set video.pairs=4
    """
    from runtime.commands.brief import describe, missing_weights
    from runtime.commands.constructors import check_stages
    from runtime.config import load_config

    loaded = load_config(config, overrides)
    check_stages(loaded)
    click.echo(f"ok: {describe(loaded)}")
    for weights in missing_weights(loaded):
        click.echo(f"runpipe: note: {weights}: there is no such file yet", err=True)
