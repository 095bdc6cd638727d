"""What a run directory keeps of its run from the beginning on, so that it can be resumed.

Both files are written before the first worker starts, each whole or not at all; `job.json` is the
last of them, so where it is the other one is too.
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from runtime.atomic import write_atomically
from runtime.config import PipelineConfig, dump_config, load_config
from runtime.errors import ConfigError, RunpipeError

CONFIG, JOB = "config.yaml", "job.json"


class StoredJob(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What was asked of the run, beside its configuration."""

    input: str
    output: str
    overwrite: bool
    config: str  # the file that it was read from; "" if it was made in Python
    num_runs: int = 1  # how often it was begun


def store_config(folder: Path, config: PipelineConfig) -> None:
    """Write the configuration, every default in it.

    Raises:
        RunpipeError: the disk is full, or the folder cannot be written.
    """
    write_whole(folder / CONFIG, dump_config(config).encode())


def store_job(folder: Path, stored: StoredJob) -> None:
    """Write the job; `store_config` comes first.

    Raises:
        RunpipeError: the disk is full, or the folder cannot be written.
    """
    write_whole(folder / JOB, msgspec.json.format(msgspec.json.encode(stored), indent=2) + b"\n")


def load_job(folder: Path) -> StoredJob:
    """Return what was asked of the run in `folder`.

    Raises:
        ConfigError: there is no run in it that has begun, or the file is damaged.
    """
    path = folder / JOB
    if not folder.is_dir():
        raise ConfigError(f"{folder}: there is no such run directory")
    try:
        return _decoder.decode(path.read_bytes())
    except FileNotFoundError as error:
        raise ConfigError(
            f"{folder}: nothing can be resumed from here: no {JOB}, so no run has begun in it; "
            "start it with --config"
        ) from error
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from error
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: is damaged, and nothing can be resumed: {error}") from error


def load_run_config(folder: Path, overrides: tuple[str, ...] = ()) -> PipelineConfig:
    """Return the configuration of the run in `folder`.

    Raises:
        ConfigError: there is none, or it is damaged.
    """
    load_job(folder)  # which knows why there may be no run at all
    path = folder / CONFIG
    if not path.is_file():
        raise ConfigError(f"{folder}: nothing can be resumed from here: no {CONFIG}")
    return load_config(path, overrides)


def settings_of(config: PipelineConfig) -> dict[str, object]:
    """Return a configuration as JSON values, every default in it."""
    return config.model_dump(by_alias=True, mode="json")


def write_whole(path: Path, data: bytes) -> None:
    """Write a file of the run directory, whole or not at all.

    Raises:
        RunpipeError: the disk is full, or the folder cannot be written.
    """
    try:
        write_atomically(path, data)
    except OSError as error:
        raise RunpipeError(f"{path}: cannot be written: {error.strerror}") from error


_decoder = msgspec.json.Decoder(StoredJob)
