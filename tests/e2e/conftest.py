import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from runtime.config import load_config
from tests.stages.video.clips import tone, write_clip


def command_line(arguments, *, project, cwd, **options):
    """Run the real command line; return the finished process."""
    return subprocess.run(
        [sys.executable, "-P", "-m", "runtime.cli", *map(str, arguments)],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(project)},
        capture_output=True,
        text=True,
        check=False,
        **options,
    )


@pytest.fixture
def runpipe(project, tmp_path):
    """Run the real command line in a folder of its own; return the finished process."""

    def run(*arguments, cwd=tmp_path, **options):
        return command_line(arguments, project=project, cwd=cwd, **options)

    return run


@pytest.fixture
def start(tmp_path, project):
    """Start the real command line in a folder of its own; kill what is left of it at the end."""
    started = []
    sockets = Path(tempfile.gettempdir(), "killed")  # a killed supervisor leaves its folder
    sockets.mkdir()

    def begin(*arguments):
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "runtime.cli", *map(str, arguments)],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(project), "TMPDIR": str(sockets)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return process

    yield begin
    for process in started:
        process.kill()
        process.communicate()
    shutil.rmtree(sockets)


@pytest.fixture(scope="session")
def clip(tmp_path_factory):
    """Return a video of 17 frames, 96x64, with sound."""
    return write_clip(
        tmp_path_factory.mktemp("clip") / "in.mp4", 17, size=(96, 64), extra=tone(0.6)
    )


@pytest.fixture
def tiny():
    """Return the demo's configuration with the smallest model, changed as `overrides` say."""

    def load(*overrides):
        weights = "model.weights=random:0:tiny"
        return load_config("demo.yaml", [weights, "video.preset=ultrafast", *overrides])

    return load
