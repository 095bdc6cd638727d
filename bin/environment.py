"""Find or make the Python environment: the start-up that bin/runpipe and bin/test share.

Standard library only, and no pipeline. It parses on Python 3.8, to say which Python is needed.
The interpreter is the first of these that has what setup.cfg asks for:

1. the running one, if it is a virtual environment: somebody chose it
2. `.venv`, when its stamps are up to date: a few small reads, so a later start costs nothing
3. the running one otherwise, a container image's for instance
4. `.venv`, made or updated now: pip, the ranges of setup.cfg, the versions of constraints.txt

`.venv` holds a stamp per group: "run", and "test" for what only bin/test needs; written last, by
rename. The lock file says UNFINISHED from before the first change until after the last stamp. Who
finds it so makes `.venv` from nothing: cheap next to the downloads, and pip has kept those.

bin/runpipe does 1 and 2 in its shell part, without a Python where the stamp holds. It sees another
virtual environment by VIRTUAL_ENV or by pyvenv.cfg beside python3, so not one that hides behind a
version manager's shim; once `.venv` is made, that is taken then.
"""

from __future__ import annotations

import hashlib
import os
import sys

TYPE_CHECKING = False  # importing typing would cost more than all the rest of a later start
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import NoReturn, TextIO

ROOT = os.path.dirname(os.path.dirname(os.path.realpath(__file__)))
VENV = os.path.join(ROOT, ".venv")
VENV_PYTHON = os.path.join(VENV, "bin", "python")
CONSTRAINTS = os.path.join(ROOT, "constraints.txt")
STAMPED = (os.path.join(ROOT, "setup.cfg"), CONSTRAINTS, os.path.join(VENV, "pyvenv.cfg"))
LOCK = os.path.join(ROOT, ".venv.lock")
NAME = os.path.basename(sys.argv[0])
GROUPS = ("run", "test")
UNFINISHED = "unfinished\n"
EXIT_FAILED, EXIT_USER, EXIT_INTERRUPTED = 1, 2, 130


def python_with(*groups: str) -> str:
    """Return the path of an interpreter that has these groups' requirements.

    Does not return when another interpreter has to take over, or when none can be had.
    """
    try:
        return _python_with(groups)
    except KeyboardInterrupt:
        fail("interrupted; the next start tries again", EXIT_INTERRUPTED)
    except OSError as error:
        fail(f"cannot make {VENV}: {error}", EXIT_FAILED)


def hand_over(python: str, *args: str) -> NoReturn:
    """Become `python -P args`, so that signals and the exit code are its own."""
    os.execve(python, [python, "-P", *args], _variables())


def run(command: Sequence[str], *, stdout: int | None = None, pass_fds: Sequence[int] = ()) -> int:
    """Run `command` to its end and return its exit code; it dies when this process does."""
    import subprocess

    return subprocess.call(
        command, env=_variables(), stdout=stdout, pass_fds=pass_fds, preexec_fn=_die_with_parent
    )


def say(text: str) -> None:
    """Write one line to stderr."""
    print(f"{NAME}: {text}", file=sys.stderr, flush=True)


def fail(text: str, code: int) -> NoReturn:
    """Write one line to stderr and exit."""
    say(text)
    raise SystemExit(code)


def _python_with(groups: Sequence[str]) -> str:
    in_venv = sys.prefix != sys.base_prefix
    is_ours = in_venv and os.path.realpath(sys.prefix) == VENV
    if (is_ours or not in_venv) and _is_ready(groups):
        return VENV_PYTHON

    import requirements  # here, because a later start ends above

    missing = requirements.missing(groups)
    if not missing and not is_ours:
        return sys.executable
    if _is_ready(groups):
        return VENV_PYTHON
    if not requirements.admits(requirements.python_requires(), requirements.running_version()):
        _take_over()
    _make(groups, missing)
    return VENV_PYTHON


def _take_over() -> NoReturn:
    """Start again with an interpreter from PATH that fits, or say that there is none."""
    import requirements

    python = requirements.other_python()
    if python:
        os.execv(python, [python, os.path.realpath(sys.argv[0]), *sys.argv[1:]])
    fail(
        f"needs Python {requirements.python_requires()}; {sys.executable} is "
        f"{requirements.running_version()}, and PATH has no other that fits",
        EXIT_USER,
    )


def _make(groups: Sequence[str], missing: str) -> None:
    import time

    with _lock() as lock:
        if _is_ready(groups):  # by now
            return
        started = time.monotonic()
        is_sound = lock.read() != UNFINISHED and _has_python_that_fits()
        _mark(lock, UNFINISHED)
        for group in GROUPS:
            if not is_sound or _read(_stamp(group)) != _key(group):
                _remove(_stamp(group))
        if is_sound:
            say("bringing .venv to what setup.cfg and constraints.txt ask for")
        else:
            _make_empty(missing, lock.fileno())
        _install(groups, lock.fileno())
        _mark(lock, "")
        say(f".venv is ready after {time.monotonic() - started:.0f} s")


def _lock() -> TextIO:
    """Let one start at a time change `.venv`. The lock goes with its holders: none gets stale."""
    import fcntl

    descriptor = os.open(LOCK, os.O_RDWR | os.O_CREAT, 0o666)
    lock = os.fdopen(descriptor, "r+", encoding="utf-8")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        say("another start is making .venv; waiting for it")
        fcntl.flock(lock, fcntl.LOCK_EX)
    return lock


def _mark(lock: TextIO, text: str) -> None:
    lock.seek(0)
    lock.truncate()
    lock.write(text)
    lock.flush()


def _make_empty(missing: str, lock: int) -> None:
    """Make `.venv` with nothing but pip in it.

    If this process is killed, venv goes on to its end and holds the lock until then: it has a
    child that writes into `.venv`, and that no signal of ours would reach.
    """
    import subprocess
    from importlib.util import find_spec

    version = "{}.{}".format(*sys.version_info[:2])
    python = os.path.realpath(getattr(sys, "_base_executable", sys.executable))
    if find_spec("venv") is None or find_spec("ensurepip") is None:
        fail(
            f"{python} cannot make an environment without its modules venv and ensurepip; "
            f"on Debian and Ubuntu: apt install python{version}-venv",
            EXIT_USER,
        )
    why = f"missing: {missing}" if missing else "it was left unfinished"
    say(
        f"making .venv with Python {version}, once; later starts use it "
        f"({why}; up to 3 GB to download)"
    )
    code = subprocess.call([python, "-I", "-m", "venv", "--clear", VENV], stdout=2, pass_fds=[lock])
    if code != 0:
        fail(f"could not make {VENV} (exit code {code}); the reason is above", EXIT_FAILED)


def _install(groups: Sequence[str], lock: int) -> None:
    """Let pip bring `.venv` up to date; -I keeps PYTHONPATH's packages from counting as there."""
    import requirements

    pip = [VENV_PYTHON, "-I", "-m", "pip", "install", "--disable-pip-version-check", "--no-input"]
    names = requirements.requirements(groups)
    code = run([*pip, "-c", CONSTRAINTS, *names], stdout=2, pass_fds=[lock])
    if code != 0:
        fail(
            f"pip could not install the requirements (exit code {code}); the reason is above, "
            "and the next start tries again",
            EXIT_FAILED,
        )
    for group in groups:
        _write(_stamp(group), _key(group))


def _is_ready(groups: Sequence[str]) -> bool:
    stamps_hold = all(_read(_stamp(group)) == _key(group) for group in groups)
    return stamps_hold and os.path.exists(VENV_PYTHON)


def _has_python_that_fits() -> bool:
    import requirements

    return requirements.admits(requirements.python_requires(), requirements.version_of(VENV_PYTHON))


def _stamp(group: str) -> str:
    return os.path.join(VENV, f"stamp-{group}")


def _key(group: str) -> str:
    """Return what the stamp of an up-to-date group says; pyvenv.cfg names the Python version.

    bin/runpipe makes that of "run" too, with `cat` and `sha256sum`: change both together.
    """
    digest = hashlib.sha256(group.encode())
    for path in STAMPED:
        digest.update(_read(path).encode())
    return digest.hexdigest() + "\n"


def _variables() -> dict[str, str]:
    """Return the environment variables for what is started: the repository first on PYTHONPATH."""
    before = os.environ.get("PYTHONPATH")
    return {**os.environ, "PYTHONPATH": ROOT + os.pathsep + before if before else ROOT}


def _die_with_parent() -> None:
    """Have the kernel end this child when its parent ends, however that ends."""
    import ctypes
    import signal

    set_parent_death_signal = 1  # PR_SET_PDEATHSIG of <sys/prctl.h>
    ctypes.CDLL(None).prctl(set_parent_death_signal, signal.SIGKILL)


def _read(path: str) -> str:
    try:
        with open(path, encoding="utf-8") as file:
            return file.read()
    except FileNotFoundError:
        return ""


def _remove(path: str) -> None:
    if os.path.exists(path):
        os.unlink(path)


def _write(path: str, text: str) -> None:
    with open(path + ".new", "w", encoding="utf-8") as file:
        file.write(text)
    os.replace(path + ".new", path)
