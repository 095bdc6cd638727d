"""Options that several commands have, and what a shell offers for them."""

from __future__ import annotations

import click
from click.shell_completion import CompletionItem

from runtime.config_files import config_names

HELP_NAMES = {"help_option_names": ["-h", "--help"]}
VARIABLE = "_RUNPIPE_COMPLETE"  # click looks here for what to complete, by our name


def complete_config(
    _context: click.Context, _parameter: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Offer the names in configs/, or files where none fits: bash cannot offer both."""
    named = [CompletionItem(name) for name in config_names() if name.startswith(incomplete)]
    return named or [CompletionItem(incomplete, type="file")]


config_option = click.option(
    "--config",
    metavar="NAME_OR_PATH",
    shell_complete=complete_config,
    help="What to run: a YAML file, or a name in configs/, such as demo. Always needed, but with "
    "--resume.",
)
needed_config_option = click.option(
    "--config",
    metavar="NAME_OR_PATH",
    required=True,
    shell_complete=complete_config,
    help="A YAML file, or a name in configs/, such as demo.",
)
set_option = click.option(
    "--set",
    "overrides",
    multiple=True,
    metavar="KEY=VALUE",
    help="Override one value of the configuration, such as video.pairs=4; may be given again. "
    "Default: none.",
)
