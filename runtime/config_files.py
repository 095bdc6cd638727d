"""Where configurations lie, and reading one: everything that can be wrong before its keys matter.

Light: completing `--config` in a shell and `--version` need no more than this.
"""

from __future__ import annotations

import stat
from pathlib import Path

from runtime.errors import ConfigError

PROJECT = Path(__file__).resolve().parent.parent
CONFIGS = PROJECT / "configs"

MAX_BYTES = 2**20  # a configuration has some kilobytes; a film named by mistake is not read whole
_UTF16 = (b"\xff\xfe", b"\xfe\xff")
_START = "start from a copy of configs/demo.yaml"


def config_names() -> list[str]:
    """Return the names of the configurations in configs/."""
    return sorted(path.stem for path in CONFIGS.glob("*.yaml"))


def find_config(name_or_path: str | Path) -> Path:
    """Return the file: a path, or a name here or in configs/, with or without `.yaml`.

    Raises:
        ConfigError: there is none.
    """
    names = (str(name_or_path), f"{name_or_path}.yaml")
    folders = (Path(), CONFIGS) if Path(name_or_path).name == str(name_or_path) else (Path(),)
    candidates = [folder / name for folder in folders for name in names]
    try:
        for path in candidates:
            if path.is_file():
                return path
    except OSError as error:  # a name that is too long, for one
        raise ConfigError(f"{name_or_path}: {error.strerror}") from error
    raise ConfigError(f"{name_or_path}: {_why_not(candidates, str(name_or_path))}")


def read_config(path: Path) -> dict[str, object]:
    """Return what stands in a configuration's file, as YAML has it.

    Raises:
        ConfigError: the file cannot be read, is no text, is broken YAML, or no mapping.
    """
    from runtime.yaml_text import parse_yaml

    try:
        data = parse_yaml(_text(path))
        if data is None:
            raise ConfigError(f"is empty; {_START}")
        if not isinstance(data, dict):
            raise ConfigError(f"wanted a mapping with `pipeline` and `stages`, found {data!r:.40}")
    except ConfigError as error:
        raise ConfigError(f"{shown(path)}: {error}") from error
    return data


def shown(path: Path) -> str:
    """Return the path as people want to see it: relative if it lies below here."""
    absolute = path.absolute()
    return str(absolute.relative_to(Path.cwd()) if absolute.is_relative_to(Path.cwd()) else path)


def _why_not(candidates: list[Path], given: str) -> str:
    from runtime.yaml_text import suggest

    for path in candidates if given else ():
        if path.is_dir():
            inside = sorted(path.glob("*.yaml"))
            example = f", such as {shown(inside[0])}" if inside else ""
            return f"is a directory; name a YAML file{example}"
        if path.exists():
            return f"is no regular file; {_START}"
    hint = suggest(Path(given).name.removesuffix(".yaml"), config_names())
    return f"no such config, neither a file nor a name in configs/; {hint}"


def _text(path: Path) -> str:
    try:
        with path.open("rb") as file:
            status = path.stat()
            if stat.S_ISREG(status.st_mode) and status.st_size > MAX_BYTES:
                mib = status.st_size / 2**20
                raise ConfigError(
                    f"has {mib:.1f} MiB, and no configuration is that large; name videos with "
                    "--input and --output"
                )
            data = file.read(MAX_BYTES)
    except OSError as error:
        raise ConfigError(f"cannot be read: {error.strerror}") from error
    if data.startswith(_UTF16):
        raise ConfigError("is UTF-16 text; save it as UTF-8")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ConfigError(
            f"line {line}: byte 0x{data[error.start]:02x} is not UTF-8 text; save it as UTF-8"
        ) from error
