"""`runpipe completion`: what a shell needs to complete our commands and options."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

from runtime.commands.options import HELP_NAMES, VARIABLE

SHELLS = ("bash", "zsh", "fish")


@click.command(context_settings=HELP_NAMES)
@click.argument("shell", type=click.Choice(SHELLS))
@click.pass_context
def completion(context: click.Context, shell: str) -> None:
    """Print the completion script of a shell.

    It completes the command `runpipe`, which has to be on the PATH.

    \b
    source <(runpipe completion bash)                  # or in ~/.bashrc
    source <(runpipe completion zsh)                   # or in ~/.zshrc
    runpipe completion fish > ~/.config/fish/completions/runpipe.fish
    """
    made_for = get_completion_class(shell)
    assert made_for is not None
    root = context.find_root()
    script = made_for(root.command, {}, "runpipe", VARIABLE)
    click.echo(script.source_template % script.source_vars())
