import os
import subprocess
import sys

import pytest

from runtime.config import load_config
from tests.stages.video.clips import tone, write_clip


@pytest.fixture
def runpipe(project, tmp_path):
    """Run the real command line in a folder of its own; return the finished process."""

    def run(*arguments, cwd=tmp_path, **options):
        return subprocess.run(
            [sys.executable, "-P", "-m", "runtime.cli", *map(str, arguments)],
            cwd=cwd,
            env={**os.environ, "PYTHONPATH": str(project)},
            capture_output=True,
            text=True,
            check=False,
            **options,
        )

    return run


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
