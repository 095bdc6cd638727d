"""The shell part of bin/runpipe: it hands over to a `.venv` that is current, and only to that.

`python3` on the PATH here is a script that says that it was started.
"""

import os
import shutil
import subprocess
import sys

import pytest

SHELLS = [shell for shell in ("sh", "bash", "dash", "ksh", "zsh", "busybox") if shutil.which(shell)]
ARGUMENTS = ("two words", "", "*", "'\"$HOME", "back\\slash", "-n", "line\nline ", "\u00e9")


@pytest.fixture
def python3(tmp_path):
    """Return a folder for the PATH, beside the checkout."""
    folder = tmp_path / "on PATH" / "bin"
    folder.mkdir(parents=True)
    (folder / "python3").write_text("#!/bin/sh\nprintf '<%s>' python3 \"$@\"\nexit 5\n")
    (folder / "python3").chmod(0o755)
    return folder


@pytest.fixture
def type_in(made, python3):
    """Return a function that starts a program as a shell would, and gives code, output, errors."""

    def start(*command, cwd=made.root, **variables):
        inherited = {k: v for k, v in os.environ.items() if k not in ("VIRTUAL_ENV", "PYTHONPATH")}
        done = subprocess.run(
            [str(part) for part in command],
            cwd=cwd,
            env={**inherited, "PATH": f"{python3}:/usr/bin:/bin", **variables},
            capture_output=True,
            text=True,
        )
        return done.returncode, done.stdout, done.stderr

    return start


def by_python(*arguments):
    """Return what a start gives that leaves the decision to Python."""
    return 5, "".join(f"<{argument}>" for argument in ("python3", *arguments)), ""


@pytest.fixture
def by_venv(made):
    """Return a function: what a start gives that hands over at once."""
    return lambda *arguments: (*made.answer_of(made.venv / "bin" / "python", *arguments), "")


@pytest.mark.slow
def test_a_current_environment_starts_without_another_python(made, type_in, by_venv):
    assert type_in("bin/runpipe", *ARGUMENTS) == by_venv(*ARGUMENTS)
    assert type_in(made.root / "bin" / "runpipe") == by_venv()


@pytest.mark.slow
@pytest.mark.parametrize("shell", SHELLS)
def test_every_shell_reads_it(type_in, by_venv, shell):
    command = [shell, "sh"] if shell == "busybox" else [shell]
    assert type_in(*command, "bin/runpipe", *ARGUMENTS) == by_venv(*ARGUMENTS)


@pytest.mark.slow
def test_it_is_found_from_any_folder_and_through_links(made, type_in, by_venv, tmp_path):
    away = tmp_path / "far" / "a way"
    away.mkdir(parents=True)
    (away / "one").symlink_to("../../bin/runpipe")
    (away / "two").symlink_to(away / "one")
    (away / "bin").symlink_to(made.root / "bin")
    assert type_in("./one", cwd=away) == by_venv()
    assert type_in(away / "two", cwd="/") == by_venv()
    assert type_in("bin/runpipe", cwd=away, CDPATH="/usr:/") == by_venv()
    on_path = f"{away / 'bin'}:/usr/bin:/bin"
    assert type_in("sh", "-c", "runpipe x", cwd="/", PATH=on_path) == by_venv("x")


@pytest.mark.slow
def test_the_repository_goes_first_on_pythonpath(made, type_in):
    (made.root / "runtime" / "__main__.py").write_text("import os; print(os.environ['PYTHONPATH'])")
    for before, after in ((None, ""), ("", ""), ("/a b:/c", ":/a b:/c")):
        variables = {} if before is None else {"PYTHONPATH": before}
        assert type_in("bin/runpipe", **variables) == (0, f"{made.root}{after}\n", "")


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["setup.cfg", "constraints.txt", ".venv/pyvenv.cfg", ".venv/stamp-run"]
)
@pytest.mark.parametrize("change", ["a byte more", "empty", "gone"])
def test_python_decides_where_the_stamp_does_not_hold(made, type_in, name, change):
    path = made.root / name
    times = path.stat().st_atime_ns, path.stat().st_mtime_ns
    text = path.read_text()
    path.write_text("" if change == "empty" else "x" + text)
    os.utime(path, ns=times)  # as tar and rsync restore them: times prove nothing
    if change == "gone":
        path.unlink()
    assert type_in("bin/runpipe", "a b") == by_python("bin/runpipe", "a b")
    path.write_text(text)
    assert type_in("bin/runpipe")[0] == 3


@pytest.mark.slow
def test_python_decides_where_the_environment_lost_its_interpreter(made, type_in):
    (made.venv / "bin" / "python").unlink()
    (made.venv / "bin" / "python").symlink_to("/nowhere/python")
    assert type_in("bin/runpipe") == by_python("bin/runpipe")


def test_python_decides_in_a_fresh_clone(checkout, python3):
    path = f"{python3}:/usr/bin:/bin"
    done = subprocess.run(
        [checkout.root / "bin" / "runpipe"], env={"PATH": path}, capture_output=True, text=True
    )
    assert (done.returncode, done.stdout, done.stderr) == by_python(checkout.root / "bin/runpipe")


@pytest.mark.slow
@pytest.mark.parametrize("place", [".", ".."])
def test_python_decides_where_another_environment_is_first_on_path(type_in, python3, place):
    (python3 / place / "pyvenv.cfg").touch()
    assert type_in("bin/runpipe") == by_python("bin/runpipe")


@pytest.mark.slow
def test_python_decides_where_another_environment_is_active(type_in, tmp_path):
    assert type_in("bin/runpipe", VIRTUAL_ENV=str(tmp_path)) == by_python("bin/runpipe")


@pytest.mark.slow
def test_our_own_environment_may_be_the_active_one(made, type_in, by_venv, python3):
    (made.venv / "bin" / "python").unlink()
    (made.venv / "bin" / "python").symlink_to(sys.executable)
    (made.venv / "bin" / "python3").unlink()
    shutil.copy(python3 / "python3", made.venv / "bin")
    path = f"{made.venv / 'bin'}:/usr/bin:/bin"
    assert type_in("bin/runpipe", VIRTUAL_ENV=str(made.venv), PATH=path) == by_venv()


@pytest.mark.slow
def test_python_decides_where_a_tool_is_missing(made, type_in, python3, tmp_path):
    (tmp_path / "few").mkdir()
    (tmp_path / "few" / "cat").symlink_to(shutil.which("cat"))
    path = f"{python3}:{tmp_path / 'few'}"
    assert type_in("bin/runpipe", PATH=path) == by_python("bin/runpipe")
