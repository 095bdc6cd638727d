"""A stage in another virtual environment: a real one, with just what a worker needs."""

import importlib.util
import os
import venv
from pathlib import Path

import pytest

from runtime.commands.constructors import check_stages
from runtime.config import parse_config
from runtime.errors import ConfigError, StageFailed
from runtime.pipeline import Pipeline

NEEDED = {"msgspec": "msgspec", "zmq": "pyzmq", "numpy": "numpy"}  # module -> package
STAGE = """
import sys

from tests.fakes import Add


class Other(Add):
    def run(self, inputs, outputs, item):
        assert sys.prefix == {prefix!r}, sys.prefix
        return super().run(inputs, outputs, item)
"""


@pytest.fixture
def other(tmp_path):
    """Make the environment; return its Python."""
    prefix = tmp_path / "env"
    venv.create(prefix, with_pip=False, symlinks=True)
    (packages,) = prefix.glob("lib/python3*/site-packages")
    for module, package in NEEDED.items():
        folder = Path(importlib.util.find_spec(module).origin).parent
        for path in (folder, *folder.parent.glob(f"{package}[-.]*")):  # what its wheel brings
            (packages / path.name).symlink_to(path)
    (packages / "only_there.py").write_text(STAGE.format(prefix=str(prefix)))
    return prefix / "bin/python"


def config(python, use="only_there:Other"):
    stages = {
        "read": {"use": "tests.fakes:Numbers"},
        "add": {"use": use, "python": str(python)},
        "write": {"use": "tests.fakes:Lines"},
    }
    return parse_config({"pipeline": "numbers", "stages": stages})


def test_a_stage_runs_in_another_environment(tmp_path, other):
    (tmp_path / "in.txt").write_text("4")
    configured = config(other)
    check_stages(configured)  # its module cannot be found here, and need not be
    with Pipeline(configured) as pipeline:
        report = pipeline.run(
            input=tmp_path / "in.txt", output=tmp_path / "out.txt", run_dir=tmp_path / "run"
        )
    assert report.items.done == 4


def test_a_module_that_only_this_environment_has_is_not_found_there(tmp_path, other):
    (tmp_path / "in.txt").write_text("4")
    with (
        Pipeline(config(other, use="stages.eden:Encode")) as pipeline,
        pytest.raises((ConfigError, StageFailed), match="torch"),
    ):
        pipeline.run(input=tmp_path / "in.txt", output=tmp_path / "o", run_dir=tmp_path / "run")


@pytest.mark.parametrize("name", ["nowhere/bin/python", os.fspath(Path(__file__))])
def test_an_interpreter_that_is_none_is_refused(name):
    with pytest.raises(ConfigError, match=r"stages.add.python: .*there is no such program"):
        config(name)
