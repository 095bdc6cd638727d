"""The group of commands that also runs a pipeline when no command is named."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

import click
from click.core import ParameterSource

from runtime.config_files import CONFIGS

NAMES = ("check", "completion", "doctor", "report", "schema")  # modules here, and what they hold


SEVERAL = "--categories"  # an option that takes several words


class Commands(click.Group):
    """Plain `runpipe --config X` runs; what is typed in the wrong place is answered with where.

    A command's module is imported when somebody asks for the command.
    """

    def list_commands(self, ctx: click.Context | None) -> list[str]:
        """Return the names of all commands."""
        return list(NAMES)

    def get_command(self, ctx: click.Context | None, cmd_name: str) -> click.Command | None:
        """Return the command of that name, if there is one."""
        if cmd_name not in NAMES:
            return None
        found = getattr(import_module(f"runtime.commands.{cmd_name}"), cmd_name)
        assert isinstance(found, click.Command)
        return found

    def format_usage(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Show both ways to call it."""
        formatter.write_usage(ctx.command_path, "--config NAME_OR_PATH [OPTIONS]")
        formatter.write_usage(ctx.command_path, "COMMAND [OPTIONS]", prefix="       ")

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Answer no arguments at all with the help."""
        if not args and not ctx.resilient_parsing:  # which is a shell that completes
            click.echo(ctx.get_help(), err=True)
            ctx.exit(2)
        return super().parse_args(ctx, _spread(args))

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command, or say what the word was probably meant to be."""
        word = args[0]
        if self.get_command(ctx, word) is None and not ctx.resilient_parsing:
            ctx.fail(f"no such command `{word}`; {self._hint(word)}")
        return super().resolve_command(ctx, args)

    def _hint(self, word: str) -> str:
        from runtime.yaml_text import suggest

        name = Path(word).name.removesuffix(".yaml")
        if name != word or (CONFIGS / f"{name}.yaml").exists():
            return f"did you mean `--config {word}`?"
        if Path(word).suffix or Path(word).exists():
            return "name files with --config, --input and --output"
        return suggest(word, NAMES)


def _spread(args: Sequence[str]) -> list[str]:
    """Let one option take several words: `--categories A B` is `--categories A --categories B`."""
    spread: list[str] = []
    takes = False
    for number, word in enumerate(args):
        if takes and not word.startswith("-") and args[number - 1] != SEVERAL:
            spread.append(SEVERAL)
        takes = word == SEVERAL or (takes and not word.startswith("-"))
        spread.append(word)
    return spread


def refuse_options_before_command(context: click.Context) -> None:
    """Refuse options of a run in front of a command, which would not see them."""
    for parameter in context.command.params:
        source = context.get_parameter_source(parameter.name or "")
        if source is ParameterSource.COMMANDLINE:
            option, command = parameter.opts[-1], context.invoked_subcommand
            context.fail(f"{option} stands before `{command}`; options of a command follow it")
