"""Log lines reach a person and a file, and a person who stops reading stops nobody."""

import logging
import re
import subprocess
import sys
import time
import warnings
from types import SimpleNamespace

import pytest

from runtime.config import PROJECT
from runtime.logs import log_path, supervisor_logs, worker_logs
from runtime.terminal import LAST_LINES_S, MAX_WAITING_LINES

logger = logging.getLogger("runtime.test")


def say_everything():
    logger.debug("item=1")
    logger.info("ready worker=%s", "denoise/0")
    logger.warning("died worker=%s", "denoise/0")
    logging.getLogger("somebody.else").info("chatter")


@pytest.mark.parametrize(
    ("verbosity", "seen", "filed"),
    [
        (0, ["warning: died"], ["INFO", "WARNING"]),
        (1, ["info: ready", "warning: died"], ["INFO", "WARNING"]),
        (2, ["debug: item", "info: ready", "warning: died"], ["DEBUG", "INFO", "WARNING"]),
        (9, ["debug: item", "info: ready", "warning: died"], ["DEBUG", "INFO", "WARNING"]),
    ],
)
def test_verbosity_says_who_sees_what(tmp_path, capfd, verbosity, seen, filed):
    with supervisor_logs(tmp_path, verbosity=verbosity) as path:
        say_everything()
    lines = capfd.readouterr().err.splitlines()
    assert [re.match(r"runpipe: (\w+: \w+)", line).group(1) for line in lines] == seen
    assert [line.split()[1] for line in path.read_text().splitlines()] == filed


def test_a_line_of_the_file_has_time_level_and_place(tmp_path):
    with supervisor_logs(tmp_path) as path:
        logger.info("ready worker=%s load_s=%.1f", "denoise/0", 14.21)
    assert path == tmp_path / "logs/supervisor.log"
    assert re.fullmatch(
        r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}\+00:00 INFO supervisor runtime\.test "
        r"ready worker=denoise/0 load_s=14\.2\n",
        path.read_text(),
    )


def test_a_traceback_is_in_the_file_and_not_on_the_terminal(tmp_path, capfd):
    with supervisor_logs(tmp_path) as path:
        try:
            raise ValueError("x")
        except ValueError:
            logger.exception("failed item=%d", 3)
    assert capfd.readouterr().err == "runpipe: error: failed item=3\n"
    assert "ValueError: x" in path.read_text()


def test_warnings_of_python_are_logged(tmp_path, capfd):
    with warnings.catch_warnings(), supervisor_logs(tmp_path) as path:
        warnings.simplefilter("always")
        warnings.warn("old", stacklevel=1)
    assert "UserWarning: old" in path.read_text()


def test_whoever_writes_to_stderr_already_gets_the_lines(tmp_path, capfd):
    said = []
    with supervisor_logs(tmp_path, terminal=SimpleNamespace(say=said.append)):
        logger.warning("died worker=%s", "denoise/0")
    assert said == ["runpipe: warning: died worker=denoise/0"]
    assert capfd.readouterr().err == ""


def test_nothing_is_left_behind(tmp_path):
    root, ours = logging.getLogger(), logging.getLogger("runtime")
    before = root.handlers[:], ours.level, warnings.showwarning
    with supervisor_logs(tmp_path):
        assert ours.level != before[1]
    assert (root.handlers, ours.level, warnings.showwarning) == before


def test_a_second_run_is_appended(tmp_path):
    for _ in range(2):
        with supervisor_logs(tmp_path) as path:
            logger.info("ready")
    assert len(path.read_text().splitlines()) == 2


def test_a_worker_has_a_file_of_its_own(tmp_path):
    assert log_path(tmp_path, "encode+decode/0") == tmp_path / "logs/encode+decode.0.log"
    assert (tmp_path / "logs").is_dir()


WORKER = """
import logging, warnings
from runtime.logs import worker_logs
with worker_logs("denoise/0"):
    logging.getLogger("stages.eden").info("loaded load_s=%.1f", 1.25)
    logging.getLogger("runtime.worker").debug("item=1")
    warnings.warn("slow path")
"""


def test_a_worker_logs_to_its_stderr(tmp_path):
    path = log_path(tmp_path, "denoise/0")
    with path.open("ab") as stderr:
        subprocess.run([sys.executable, "-c", WORKER], stderr=stderr, check=True, cwd=PROJECT)
    text = path.read_text()
    assert "INFO denoise/0 stages.eden loaded load_s=1.2\n" in text
    assert "WARNING denoise/0 py.warnings <string>:7: UserWarning: slow path" in text
    assert "item=1" not in text


def test_a_worker_leaves_nothing_behind():
    before = logging.getLogger().handlers[:]
    with worker_logs("denoise/0", verbosity=2):
        assert logging.getLogger("stages").isEnabledFor(logging.DEBUG)
    assert logging.getLogger().handlers == before


STUCK = f"""
import logging, sys
from pathlib import Path
from runtime.logs import supervisor_logs
with supervisor_logs(Path(sys.argv[1])):
    for number in range({3 * MAX_WAITING_LINES}):
        logging.getLogger("runtime").warning("number=%d %s", number, "x" * 100)
"""


def test_a_terminal_that_stands_still_stops_nobody(tmp_path):
    started = time.monotonic()
    command = [sys.executable, "-c", STUCK, str(tmp_path)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, cwd=PROJECT) as process:
        assert process.wait(timeout=30) == 0  # though nobody has read a byte
        assert process.stderr.read().startswith(b"runpipe: warning: number=0 ")
    assert time.monotonic() - started < 2 * LAST_LINES_S + 5
    assert len(log_path(tmp_path, "supervisor").read_text().splitlines()) == 3 * MAX_WAITING_LINES


def test_a_full_disk_under_the_log_is_said_once_and_ends_nothing(tmp_path, capfd):
    path = log_path(tmp_path, "supervisor")
    path.unlink()
    path.symlink_to("/dev/full")
    with supervisor_logs(tmp_path):
        for _line in range(3):
            logger.warning("died")
    lines = capfd.readouterr().err.splitlines()
    assert lines.count("runpipe: warning: died") == 3
    (said,) = [line for line in lines if line != "runpipe: warning: died"]
    assert said.endswith("logs/supervisor.log: cannot be written: No space left on device")
