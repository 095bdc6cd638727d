"""A configuration's file: what can be wrong with it before its keys matter."""

import os
from pathlib import Path

import pytest

from runtime.config_files import MAX_BYTES, config_names, find_config, read_config
from runtime.errors import ConfigError


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def refused(name):
    with pytest.raises(ConfigError) as caught:
        read_config(find_config(name))
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith(f"{name}: ")
    return message.removeprefix(f"{name}: ")


@pytest.mark.parametrize("name", ["yaml", "nope/xyz", ""])
def test_one_that_is_nowhere_is_said_with_those_there_are(name):
    assert refused(name) == (
        f"no such config, neither a file nor a name in configs/; known: {', '.join(config_names())}"
    )


@pytest.mark.parametrize(
    ("name", "meant"),
    [("dmeo", "demo"), ("dmeo.yaml", "demo"), ("configs/dmeo.yaml", "demo")],
)
def test_a_mistyped_name_is_answered_with_the_nearest(name, meant):
    assert refused(name).endswith(f"; did you mean `{meant}`?")


def test_a_directory_is_answered_with_a_file_in_it(here):
    (here / "mine").mkdir()
    assert refused("mine") == "is a directory; name a YAML file"
    (here / "mine/b.yaml").touch()
    assert refused("mine") == "is a directory; name a YAML file, such as mine/b.yaml"


def test_what_is_no_regular_file_is_refused_and_not_waited_for(here):
    os.mkfifo(here / "pipe.yaml")
    assert refused("pipe.yaml").startswith("is no regular file; ")
    assert refused("/dev/null").startswith("is no regular file; ")


def test_one_that_cannot_be_read_is_said_with_the_reason():
    assert refused("/proc/self/mem") == "cannot be read: Input/output error"


def test_one_that_may_not_be_read_is_said_with_the_reason(monkeypatch):
    Path("c.yaml").write_text("pipeline: x")

    def refuse(*_arguments):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)  # root may read everything
    assert refused("c.yaml") == "cannot be read: Permission denied"


def test_a_film_named_by_mistake_is_not_read():
    with Path("film.mp4").open("wb") as film:
        film.truncate(5000 * MAX_BYTES)
    assert refused("film.mp4") == (
        "has 5000.0 MiB, and no configuration is that large; name videos with --input and --output"
    )


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"\xff\xfea\x00", "is UTF-16 text; save it as UTF-8"),
        (
            "a: b\nc: \u00e9".encode("latin-1"),
            "line 2: byte 0xe9 is not UTF-8 text; save it as UTF-8",
        ),
        (b"\x00\x00", "line 1: the character #x0000 is not allowed"),
        (b"", "is empty; start from a copy of configs/demo.yaml"),
        (b"just text", "wanted a mapping with `pipeline` and `stages`, found 'just text'"),
    ],
)
def test_what_is_no_text_of_a_configuration_is_said(data, message):
    Path("c.yaml").write_bytes(data)
    assert refused("c.yaml") == message


def test_a_byte_order_mark_is_no_mistake():
    Path("c.yaml").write_bytes(b"\xef\xbb\xbfpipeline: x\n")
    assert read_config(Path("c.yaml")) == {"pipeline": "x"}
