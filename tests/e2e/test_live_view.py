"""What a person at a terminal sees while a run goes on."""

import json
import os
import signal
import subprocess
import sys
import termios
import threading
from contextlib import contextmanager

import pytest

from tests.screen import Screen, open_pty, read_all

PIPELINE = """
pipeline: fake
stages:
  read: {use: "tests.fakes:Numbers", with: {delay_s: 0.06}}
  add: {use: "tests.fakes:RaisesAt", with: {poison: 20}}
  write: {use: "tests.fakes:Lines"}
run: {stop_grace_s: 1}
"""
WARNING = "runpipe: warning: stage add failed in worker add/0 on item 20: ValueError: frame pair"
COMMAND = ["--config", "fake.yaml", "--output", "out.txt", "--run-dir", "run"]


@pytest.fixture
def start(tmp_path, project, numbers):
    """Return a function that starts such a run with these streams and more words."""
    (tmp_path / "fake.yaml").write_text(PIPELINE)

    @contextmanager
    def begin(count, *more, term="xterm-256color", **streams):
        words = [*COMMAND, "--input", str(numbers(count)), *more]
        with subprocess.Popen(
            [sys.executable, "-P", "-m", "runtime.cli", *words],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(project), "TERM": term},
            **streams,
        ) as process:
            try:
                yield process
            finally:
                process.kill()  # if it has not ended, something is wrong already

    return begin


def drawn(start, *words, count=40, width=300, until=None, signum=None, **options):
    """Run at a terminal; return all that was visible at some time, and the exit code."""
    screen, seen = Screen(width, 24), []
    with open_pty(width, 24) as (ours, theirs):
        streams = {"stdout": theirs, "stderr": theirs} | options
        with start(count, *words, **streams) as process:
            end = threading.Thread(target=lambda: (process.wait(), os.write(theirs, b"\x1b[0m~")))
            end.start()
            for text in read_all(ours):
                screen.feed(text.replace("~", ""))
                seen.append(screen.lines)
                if signum and any(until in line for line in screen.lines):
                    process.send_signal(signum)
                    signum = None
                if text.endswith("~"):
                    break
            end.join()
    assert not screen.is_cursor_hidden
    return seen, process.returncode


def test_a_row_per_worker_the_warning_above_and_nothing_left(start):
    seen, code = drawn(start)
    assert code == 1, "an item failed"
    tables = [lines for lines in seen if any(line.startswith("add/0 ") for line in lines)]
    assert len(tables) >= 4
    running = next(lines for lines in tables if "numbers, " in lines[-1] and "left" in lines[-1])
    assert running[-5].split() == [
        "worker",
        "device",
        "items",
        "in",
        "flight",
        "items/s",
        "busy",
        "now",
    ]
    assert [line.split()[0] for line in running[-4:-1]] == ["read/0", "add/0", "write/0"]
    assert any(line.startswith("add/0") and "waits for read" in line for line in running)
    after = [lines for lines in tables if any("warning" in line for line in lines)]
    assert after
    assert all(lines[0].startswith(WARNING) for lines in after), "above the table"
    assert all(line.count("runpipe: warning") <= 1 for lines in seen for line in lines)
    assert sum("warning" in line for line in seen[-1]) == 1
    assert not any(line.startswith(("worker ", "read/0", "add/0")) for line in seen[-1])
    assert len(seen[-1]) == 2
    assert seen[-1][1].endswith("see `runpipe report run`")


@pytest.mark.nightly
def test_a_run_that_is_whole_leaves_one_line(start):
    seen, code = drawn(start, count=12)
    assert code == 0
    assert len(seen[-1]) == 1
    assert seen[-1][0].startswith("12 numbers in ")


@pytest.mark.parametrize(
    ("signum", "code"),
    [(signal.SIGINT, 130), pytest.param(signal.SIGTERM, 143, marks=pytest.mark.nightly)],
)
def test_an_interruption_wipes_the_table_too(start, signum, code):
    seen, returned = drawn(start, count=500, until=" left, ", signum=signum)
    assert returned == code
    assert any(line.startswith("add/0 ") for lines in seen for line in lines)
    assert seen[-1][-1].startswith("runpipe: interrupted by SIG")
    assert all(line.startswith("runpipe: ") for line in seen[-1])


def test_json_alone_on_stdout_and_the_table_on_the_terminal(start, tmp_path):
    with (tmp_path / "stdout").open("wb") as stdout:
        seen, code = drawn(start, "--json", count=12, stdout=stdout)
    assert code == 0
    assert json.loads((tmp_path / "stdout").read_text())["status"] == "done"
    assert any(line.startswith("add/0 ") for lines in seen for line in lines)
    assert seen[-1] == [""]


def test_the_report_of_a_run_that_failed_is_not_drawn_over(start):
    seen, code = drawn(start, "--json", width=5000)
    assert code == 1
    first = seen[-1].index("{")
    report = json.loads("\n".join(seen[-1][first : seen[-1].index("}") + 1]))
    assert report["status"] == "failed"


@pytest.mark.nightly
def test_quiet_shows_warnings_and_errors_only(start):
    seen, code = drawn(start, "--quiet")
    assert code == 1
    assert all(line.startswith("runpipe: ") for lines in seen for line in lines if line)
    assert seen[-1][0].startswith(WARNING)
    assert len(seen[-1]) == 2


def test_a_terminal_that_stands_still_does_not_hold_up_the_run(start, tmp_path):
    with open_pty() as (ours, theirs):
        termios.tcflow(theirs, termios.TCOOFF)
        with start(15, stdout=subprocess.PIPE, stderr=theirs) as process:
            out, _err = process.communicate(timeout=60)  # though nobody has seen a byte
        assert process.returncode == 0
        assert out.startswith(b"15 numbers in ")
        os.set_blocking(ours, False)
        with pytest.raises(BlockingIOError):
            os.read(ours, 1)
    report = json.loads((tmp_path / "run/report.json").read_text())
    assert report["run_s"] < 15 * 0.06 + 5


@pytest.mark.parametrize("stderr", ["pipe", pytest.param("dumb", marks=pytest.mark.nightly)])
def test_elsewhere_plain_lines_are_told(start, tmp_path, stderr):
    with open_pty() as (ours, theirs):
        at = subprocess.PIPE if stderr == "pipe" else theirs
        with start(110, "--set", "stages.add.with.poison=999", stderr=at, term="dumb") as process:
            text = process.communicate(timeout=60)[1]
        assert process.returncode == 0
        text = text or os.read(ours, 65536)
    lines = text.decode().splitlines()
    assert any("/110 numbers, " in line and "read/0 is " in line for line in lines), lines
    wall_s = json.loads((tmp_path / "run/report.json").read_text())["wall_s"]
    assert len(lines) <= wall_s / 5 + 1
    assert b"\x1b" not in text


def test_what_does_not_draw_does_not_load_rich(project, tmp_path, numbers):
    (tmp_path / "fake.yaml").write_text(PIPELINE)
    words = [*COMMAND, "--input", str(numbers(3))]
    code = (
        "import sys; from runtime.cli import answer;"
        f"print([answer(words) for words in (['--help'], ['check', '--config', 'demo'], {words})],"
        "'rich' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-P", "-c", code],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(project)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.splitlines()[-1] == "[0, 0, 0] False", done.stderr
