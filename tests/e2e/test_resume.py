"""Runs on the command line that are killed, stopped or drained, and then resumed."""

import json
import signal
from pathlib import Path

import pytest

from runtime.journal import Journal
from tests.waiting import wait_until


def durable(folder):
    with Journal.open(folder / "journal.sqlite") as journal:
        done = journal.done(folder)
    assert done.problems == ()
    return set(done)


# --- a video ---

SMALL = [
    *("--config", "demo", "--set", "model.weights=random:0:tiny", "--set", "video.pairs=1"),
    *("--set", "video.preset=ultrafast", "--set", "stages.write.with.segment_windows=2"),
]


def sources_read(folder):
    """Return which windows each stage was given in the last run of a directory."""
    trace = json.loads((folder / "trace.json").read_text())
    events = [event for event in trace["traceEvents"] if event.get("ph") == "X"]
    return {
        stage: {e["args"]["item"] for e in events if e["name"] == stage and "item" in e["args"]}
        for stage in ("read", "encode", "denoise", "decode", "write")
    }


def test_a_run_whose_supervisor_was_killed_goes_on_to_the_same_bytes(
    runpipe, start, clip, tmp_path
):
    whole = runpipe(*SMALL, "--input", clip, "--output", "whole.mp4", "--run-dir", "whole")
    assert whole.returncode == 0, whole.stderr
    killed = start(*SMALL, "--input", clip, "--output", "out.mp4", "--run-dir", "run")
    folder = tmp_path / "run"
    wait_until(lambda: len(list(folder.glob("segments/*.nut"))) >= 2, timeout_s=120)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    resumed = runpipe("--resume", "run")
    assert resumed.returncode == 0, resumed.stderr
    assert (tmp_path / "out.mp4").read_bytes() == (tmp_path / "whole.mp4").read_bytes()
    report = json.loads((folder / "report.json").read_text())
    before = report["resumed"]["items"]
    assert 0 < before < 16
    assert before % 2 == 0
    assert (report["status"], report["items"]["done"], report["units"]["done"]) == ("done", 16, 16)
    assert report["warnings"] == []
    whole_report = json.loads((tmp_path / "whole/report.json").read_text())
    assert report["counts"] == whole_report["counts"]
    for stage, items in sources_read(folder).items():
        assert items == set(range(before, 16)), f"{stage} did what was durable again"
    again = runpipe("--resume", "run")
    assert (again.returncode, again.stdout) == (0, "run: is done already: out.mp4 is as it was\n")


# --- signals ---

SLOW = """
pipeline: fake
stages:
  read: {use: "tests.fakes:Numbers"}
  add: {use: "tests.fakes:Add", with: {delay_s: DELAY}}
  write: {use: "tests.fakes:Lines"}
run: {stop_grace_s: 1}
"""


@pytest.fixture
def slow(start, numbers, tmp_path):
    """Start a run of 80 items, of which some are durable when it is returned."""

    def begin(delay_s):
        (tmp_path / "slow.yaml").write_text(SLOW.replace("DELAY", str(delay_s)))
        numbers(80)
        process = start(
            *("--config", "slow.yaml", "--input", "80.txt", "--output", "out.txt"),
            *("--run-dir", "run"),
        )
        wait_until(lambda: len(list((tmp_path / "run").glob("segments/*"))) >= 2)
        return process

    return begin


def finished(runpipe, tmp_path):
    """Resume what has been stopped; return how many items were durable."""
    path = tmp_path / "slow.yaml"
    path.write_text(path.read_text().replace("80.txt", "gone"))  # it is not looked at again
    resumed = runpipe("--resume", "run", "--json")
    assert resumed.returncode == 0, resumed.stderr
    assert len((tmp_path / "out.txt").read_text().splitlines()) == 80
    return json.loads(resumed.stdout)["resumed"]["items"]


def test_ctrl_c_drains_and_says_how_to_go_on(slow, runpipe, tmp_path):
    process = slow(0.2)
    process.send_signal(signal.SIGINT)
    _out, told = process.communicate(timeout=60)
    assert process.returncode == 130, told
    lines = told.splitlines()
    assert "runpipe: finishing what is under way; Ctrl-C again stops at once" in lines
    assert lines[-1].startswith("runpipe: interrupted by SIGINT after ")
    assert lines[-1].endswith("; see `runpipe report run`; go on with `runpipe --resume run`")
    report = json.loads((tmp_path / "run/report.json").read_text())
    assert report["status"] == "interrupted"
    workers = {worker["name"]: worker["items"] for worker in report["workers"]}
    assert workers["read/0"] == workers["write/0"] == report["items"]["done"], "all of it is kept"
    assert finished(runpipe, tmp_path) == report["items"]["done"]


@pytest.mark.parametrize(
    ("signals", "code"), [((signal.SIGINT, signal.SIGINT), 130), ((signal.SIGTERM,), 143)]
)
def test_ctrl_c_twice_or_sigterm_stop_at_once(slow, runpipe, tmp_path, signals, code):
    process = slow(1.0)
    for number, signum in enumerate(signals):
        process.send_signal(signum)
        if number == 0 and len(signals) > 1:  # two that are pending would be one
            assert "finishing what" in read_until(process.stderr, "finishing what")
    _out, told = process.communicate(timeout=20)
    assert process.returncode == code, told
    assert f"interrupted by {signals[-1].name} after " in told
    assert told.splitlines()[-1].endswith("go on with `runpipe --resume run`")
    report = json.loads((tmp_path / "run/report.json").read_text())
    assert report["status"] == "interrupted"
    assert len(durable(tmp_path / "run")) == report["items"]["done"] < 80


def read_until(file, text):
    for line in file:
        if text in line:
            return line
    return ""


def test_another_configuration_is_refused_on_the_command_line(slow, runpipe, tmp_path):
    process = slow(0.05)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=20)
    refused = runpipe("--resume", "run", "--seed", "3", "--output", "other.txt")
    assert refused.returncode == 2
    assert "config.run.seed: 0 -> 3; output: " in refused.stderr.splitlines()[-1]
    assert not Path(tmp_path / "other.txt").exists()
    agreeing = ["--config", "slow.yaml", "--input", "80.txt", "--output", "out.txt"]
    assert runpipe("--resume", "run", *agreeing).returncode == 0
    assert len((tmp_path / "out.txt").read_text().splitlines()) == 80
