"""What can be said of a job's input and output before anything starts."""

from __future__ import annotations

from pathlib import Path

from runtime.errors import ConfigError
from stages.base import Job


def check_folders(source: str, output: Path) -> None:
    """Refuse what can be seen to fail of a pipeline in sections, whose output is a folder.

    Raises:
        ConfigError: no input, or an output that cannot be a folder.
    """
    if not source:
        raise ConfigError("no input: say --input FILE, or `input:` in the configuration")
    if not Path(source).exists():
        raise ConfigError(f"{source}: no such input")
    if output.exists() and not output.is_dir():
        raise ConfigError(f"{output}: is no folder, and this pipeline makes several files")
    if not output.parent.is_dir():
        raise ConfigError(f"{output}: there is no folder {output.parent}")


def check_paths(job: Job) -> None:
    """Refuse what can be seen to fail before anything starts; source and sink look closer later.

    Raises:
        ConfigError: no input, no output, or an output that exists or cannot be.
    """
    for name, path in (("input", job.input), ("output", job.output)):
        if not path:
            raise ConfigError(f"no {name}: say --{name} FILE, or `{name}:` in the configuration")
    source, output = Path(job.input), Path(job.output)
    if not source.exists():
        raise ConfigError(f"{source}: no such input")
    if output.exists() and output.samefile(source):
        raise ConfigError(f"{output}: is the input; choose another --output")
    if output.exists() and not job.overwrite:
        raise ConfigError(f"{output}: exists; say --overwrite, or choose another --output")
    if not output.parent.is_dir():
        raise ConfigError(f"{output}: there is no folder {output.parent}")
