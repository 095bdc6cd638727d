"""A small checkout with bin/ in it: real environments, real pip, no network.

The checkout asks for one small wheel, which lies beside it; its extra "test" for another, which
carries modules named ruff, mypy and pytest that only say how they were started.
"""

import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

BIN = Path(__file__).parents[2] / "bin"
CLI = (
    "import json, sys; print(json.dumps([sys.executable, sys.argv[1:], sys.path[0]])); sys.exit(3)"
)
CHECK = "import sys; print({name!r}, *sys.argv[1:], flush=True); sys.exit({code})"
SETUP = """
[options]
python_requires = {python}
install_requires =
    {requirement}
[options.extras_require]
test = small-checks
"""


class Checkout:
    """A copy of start-up, with a command line that says how it was started."""

    def __init__(self, root):
        self.root, self.venv, self.wheels = root, root / ".venv", root / "wheels"
        for folder in ("bin", "runtime", "wheels"):
            (root / folder).mkdir()
        for name in ("runpipe", "test", "environment.py", "requirements.py"):
            shutil.copy(BIN / name, root / "bin")
        (root / "runtime" / "__init__.py").touch()
        (root / "runtime" / "__main__.py").write_text(CLI)
        (root / "constraints.txt").write_text("small-wheel==1.0\nsmall-checks==1.0\n")
        self.ask()
        self.add_wheel("small_wheel", {"small_wheel": ""})
        self.add_checks(mypy=0)

    def ask(self, *, python=">=3", requirement="small-wheel>=1,<2"):
        (self.root / "setup.cfg").write_text(SETUP.format(python=python, requirement=requirement))

    def add_checks(self, *, mypy):
        codes = {"ruff": 0, "mypy": mypy, "pytest": 0}
        modules = {name: CHECK.format(name=name, code=code) for name, code in codes.items()}
        self.add_wheel("small_checks", modules)

    def add_wheel(self, name, modules):
        info = f"{name}-1.0.dist-info"
        files = {f"{module}.py": text for module, text in modules.items()} | {
            f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n",
            f"{info}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        }
        files[f"{info}/RECORD"] = "".join(f"{path},,\n" for path in [*files, f"{info}/RECORD"])
        with zipfile.ZipFile(self.wheels / f"{name}-1.0-py3-none-any.whl", "w") as wheel:
            for path, text in files.items():
                wheel.writestr(path, text)

    def is_unfinished(self):
        lock = self.root / ".venv.lock"
        return lock.exists() and lock.read_text() != ""

    def start(self, script, *args, **variables):
        environment = {**os.environ, "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(self.wheels)}
        return subprocess.Popen(
            [sys.executable, self.root / "bin" / script, *args],
            env=environment | variables,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,  # so that a signal to its group is not one to ours
        )

    def run(self, script, *args, **variables):
        process = self.start(script, *args, **variables)
        output, errors = process.communicate(timeout=60)
        return process.returncode, output, errors

    def answer_of(self, python, *args):
        """Return what bin/runpipe gives when `python` runs the command line."""
        return 3, json.dumps([str(python), list(args), str(self.root)]) + "\n"


@pytest.fixture
def checkout(tmp_path):
    return Checkout(tmp_path)


@pytest.fixture(scope="session")
def first_start(tmp_path_factory):
    """Start bin/runpipe once; it takes seconds, so tests that need a made `.venv` copy this one."""
    checkout = Checkout(tmp_path_factory.mktemp("made"))
    return checkout, checkout.run("runpipe", "--config", "demo.yaml")


@pytest.fixture
def made(checkout, first_start):
    shutil.copytree(first_start[0].venv, checkout.venv, symlinks=True)
    return checkout
