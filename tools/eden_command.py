"""What the commands of training and judging share: devices, photographs, mistakes in one line."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence

import click
import torch

from stages.base import UserError

INTERRUPTED = 130  # as a shell has it


class Device(click.ParamType):
    """The CPU, or a GPU that is there."""

    name = "device"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return the name as it is."""
        try:
            device = torch.device(value)
        except RuntimeError:
            self.fail(f"{value!r} is no device; write cpu, cuda or cuda:N", param, ctx)
        if device.type not in ("cpu", "cuda"):
            self.fail(f"{value!r} cannot be used; write cpu, cuda or cuda:N", param, ctx)
        if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
            count = torch.cuda.device_count()
            self.fail(f"{value!r} is not there: PyTorch sees {count} GPUs", param, ctx)
        return value


def say_photographs(found: Mapping[str, torch.Tensor], names: Mapping[str, Sequence[str]]) -> None:
    """Print how many of these photographs are used; warn if that is none."""
    wanted = sum(len(files) for files in names.values())
    click.echo(f"photographs: {len(found)} of {wanted}")
    if not found:
        packages = ", ".join(names)
        click.echo(f"warning: no photographs: {packages} hold them, if installed", err=True)


def start(command: click.Command) -> None:
    """Run a command line; end with one line for what its user did wrong."""
    try:
        command(standalone_mode=False)
    except click.Abort:
        click.echo("interrupted", err=True)
        sys.exit(INTERRUPTED)
    except click.ClickException as error:
        sys.exit(f"error: {error.format_message()}")
    except UserError as error:
        sys.exit(f"error: {error}")
