"""bin/runpipe and bin/test on the small checkout of conftest.py."""

import ast
import importlib.util
import os
import signal
import sys
from pathlib import Path

import pytest

from tests.waiting import wait_until

BIN = Path(__file__).parents[2] / "bin"


def load(name):
    spec = importlib.util.spec_from_file_location(name, BIN / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def killed(checkout, script, *, when, number=signal.SIGKILL):
    """Start a script, signal its group when `when` holds, and return its stderr and exit code."""
    process = checkout.start(script)
    wait_until(when)
    os.killpg(process.pid, number)
    return process.communicate(timeout=60)[1], process.returncode


@pytest.mark.slow
def test_the_first_start_makes_the_environment(first_start):
    checkout, (code, output, errors) = first_start
    python = checkout.venv / "bin" / "python"
    assert (code, output) == checkout.answer_of(python, "--config", "demo.yaml")
    assert errors.startswith("runpipe: making .venv with Python 3.")


@pytest.mark.slow
def test_later_starts_only_use_it(made):
    before = {path: path.stat().st_mtime_ns for path in made.venv.rglob("*")}
    assert made.run("runpipe") == (*made.answer_of(made.venv / "bin" / "python"), "")
    assert {path: path.stat().st_mtime_ns for path in made.venv.rglob("*")} == before


@pytest.mark.slow
def test_bin_test_adds_its_own_and_runs_every_check_in_order(made):
    code, output, errors = made.run("test")
    checks = ["ruff check", "ruff format --check", "mypy", "pytest"]
    assert (code, output.splitlines()[-4:]) == (0, checks)
    assert "test: bringing .venv to what setup.cfg" in errors
    assert "test: all passed: ruff check 0." in errors
    assert made.run("test", "tests/ipc", "-k", "x") == (0, "pytest tests/ipc -k x\n", "")
    assert made.run("test", "--static")[1].splitlines() == checks[:-1]
    assert made.run("runpipe")[2] == ""


@pytest.mark.slow
def test_bin_test_stops_at_the_first_failure(made):
    made.add_checks(mypy=7)
    code, output, errors = made.run("test")
    assert (code, "pytest" in output.splitlines()) == (7, False)
    assert "test: FAILED with exit code 7: ruff check 0." in errors


@pytest.mark.slow
def test_other_requirements_update_it_in_place(made):
    before = (made.venv / "pyvenv.cfg").stat().st_mtime_ns
    made.ask(requirement="small-checks")
    code, _output, errors = made.run("runpipe")
    assert (code, "runpipe: bringing .venv to what" in errors) == (3, True)
    assert (made.venv / "pyvenv.cfg").stat().st_mtime_ns == before


@pytest.mark.slow
def test_what_pip_cannot_find_ends_with_its_reason_and_ours(made):
    made.ask(requirement="absent-wheel>=2")
    code, output, errors = made.run("runpipe")
    assert (code, output) == (1, "")
    assert "No matching distribution found for absent-wheel>=2" in errors
    assert errors.splitlines()[-1].startswith("runpipe: pip could not install the requirements")


@pytest.mark.slow
def test_a_start_after_one_killed_in_the_middle_makes_it_anew(checkout):
    _errors, code = killed(checkout, "runpipe", when=(checkout.venv / "pyvenv.cfg").exists)
    assert code == -signal.SIGKILL
    code, _output, errors = checkout.run("runpipe")
    assert (code, "runpipe: making .venv" in errors) == (3, True)


@pytest.mark.slow
def test_a_bin_test_killed_in_the_middle_leaves_runpipe_whole_and_is_made_anew(made):
    _errors, code = killed(made, "test", when=made.is_unfinished)
    assert code == -signal.SIGKILL
    assert made.run("runpipe") == (*made.answer_of(made.venv / "bin" / "python"), "")
    code, _output, errors = made.run("test")
    assert (code, "test: making .venv" in errors) == (0, True)


@pytest.mark.slow
def test_ctrl_c_ends_it_with_130_and_a_line(made):
    errors, code = killed(made, "test", when=made.is_unfinished, number=signal.SIGINT)
    assert code == 130
    assert "test: interrupted; the next start tries again\n" in errors  # pip may speak later


@pytest.mark.slow
def test_the_installing_pip_dies_with_a_killed_start(made):
    start = made.start("test")
    children = Path(f"/proc/{start.pid}/task/{start.pid}/children")

    def pip_runs():
        commands = [Path(f"/proc/{pid}/cmdline") for pid in children.read_text().split()]
        return any(b"\0pip\0" in command.read_bytes() for command in commands)

    wait_until(pip_runs)
    start.kill()
    start.communicate(timeout=60)  # ends when pip has closed its end of stderr too
    assert not list(made.venv.rglob("mypy.py"))


@pytest.mark.slow
def test_of_two_starts_at_once_the_second_waits_and_says_so(checkout):
    starts = [checkout.start("runpipe") for _ in range(2)]
    errors = [start.communicate(timeout=60)[1] for start in starts]
    assert [start.returncode for start in starts] == [3, 3]
    assert sorted(text.count("making .venv with") for text in errors) == [0, 1]
    assert "runpipe: another start is making .venv; waiting for it\n" in errors


def test_an_interpreter_that_has_everything_is_used_as_it_is(checkout):
    checkout.ask(requirement="pytest>=1")
    assert checkout.run("runpipe", "plan") == (*checkout.answer_of(sys.executable, "plan"), "")
    assert not checkout.venv.exists()


def test_no_python_that_fits_is_said_in_one_line(checkout):
    checkout.ask(python=">=3.90,<3.92")
    code, output, errors = checkout.run("runpipe")
    version = "{}.{}.{}".format(*sys.version_info[:3])
    assert (code, output) == (2, "")
    assert errors == (
        f"runpipe: needs Python >=3.90,<3.92; {sys.executable} is {version}, "
        "and PATH has no other that fits\n"
    )


def test_another_python_on_path_takes_over_if_it_really_runs(checkout):
    checkout.ask(python=">=3.90,<3.92")
    for folder, does in {
        "broken": "echo 'no such version' >&2; exit 127",
        "good": 'case "$*" in *-c*) echo 3.91.0;; *) echo "$@";; esac',
    }.items():
        (checkout.root / folder).mkdir()
        python = checkout.root / folder / "python3.91"
        python.write_text(f"#!/bin/sh\n{does}\n")
        python.chmod(0o755)
    path = os.pathsep.join([f"{checkout.root}/broken", f"{checkout.root}/good", os.environ["PATH"]])

    code, output, errors = checkout.run("runpipe", "plan", PATH=path)
    assert (code, output, errors) == (0, f"{checkout.root}/bin/runpipe plan\n", "")


def test_a_python_without_ensurepip_names_the_package_to_install(checkout):
    (checkout.root / "sitecustomize.py").write_text("import sys; sys.modules['ensurepip'] = None")
    code, _output, errors = checkout.run("runpipe", PYTHONPATH=str(checkout.root))
    version = "{}.{}".format(*sys.version_info[:2])
    assert (code, errors.count("\n")) == (2, 1)
    assert errors.endswith(f"on Debian and Ubuntu: apt install python{version}-venv\n")


@pytest.mark.parametrize("name", ["runpipe", "test", "environment.py", "requirements.py"])
def test_start_up_parses_on_python_3_8(name):
    ast.parse((BIN / name).read_text(), feature_version=(3, 8))


@pytest.mark.parametrize(
    ("ranges", "inside", "outside"),
    [
        (">=2.11,<2.14", ["2.11", "2.11.0+cu130", "2.13.9", "2.12.0rc1"], ["2.14.0", "2.9.1", ""]),
        (">=2.11,<2.14", ["2.11.0.post1"], ["2.11.0rc1", "2.11.0a0+git", "2.14.0.dev1", "dev"]),
        (">=2, <3", ["2", "2.0", "2.99.1"], ["1.99", "3.0.0"]),
        ("==2.0", ["2.0.0", "2+cpu"], ["2.0.1"]),
        ("!=2.1,>2", ["2.2"], ["2.1.0", "2.0"]),
        ("", ["0.1", "1!2"], [""]),
        ("~=2.1", [], ["2.1"]),  # not understood, so refused: then pip decides
        ("; python_version < '3.12'", [], ["2.1"]),
    ],
)
def test_versions_are_compared_as_numbers(ranges, inside, outside):
    admits = load("requirements").admits
    assert [version for version in inside if not admits(ranges, version)] == []
    assert [version for version in outside if admits(ranges, version)] == []
