import json
import os
import subprocess
import sys

import pytest

from tools.bench_sharing import WAYS, _environment, lines, mps
from tools.sharing_work import Work

WORK = Work(
    weights="random:0:tiny",
    dtype="float32",
    device="cpu",
    width=64,
    height=48,
    pairs=2,
    seconds=0.2,
)
CONTROL = """#!/bin/sh
echo "$CUDA_MPS_PIPE_DIRECTORY $1 $(cat)" >> {log}
"""


@pytest.mark.nightly
def test_all_ways_but_mps_are_measured_on_a_cpu(project, tmp_path):
    path = tmp_path / "sharing.json"
    command = [sys.executable, project / "tools/bench_sharing.py", "--weights", "random:0:tiny"]
    command += ["--dtype", "float32", "--device", "cpu", "--width", 64, "--height", 48]
    command += ["--pairs", 2, "--seconds", 0.5, "--repeat", 1, "--json", path]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    found = json.loads(path.read_text())["windows_per_s"]
    assert list(found) == [way.name for way in WAYS if not way.with_mps]
    assert all(speed > 0 for (speed,) in found.values())
    assert "note: MPS: " in done.stdout


@pytest.mark.slow
@pytest.mark.nightly
def test_a_process_that_dies_is_told_and_the_others_go_on(project):
    command = [sys.executable, project / "tools/bench_sharing.py", "--weights", "none.pt"]
    command += ["--device", "cpu", "--pairs", 1, "--seconds", 0.1, "--repeat", 1]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=300)
    assert done.returncode == 1
    for way in WAYS:
        assert way.with_mps or f"{way.name} failed: {way.name}: a process died" in done.stdout


def test_the_mps_server_is_stopped_whatever_happens(tmp_path):
    control, log = tmp_path / "control", tmp_path / "log"
    control.write_text(CONTROL.format(log=log))
    control.chmod(0o755)
    folder = ""

    def fail():
        nonlocal folder
        with mps(str(control)):
            folder = os.environ["CUDA_MPS_PIPE_DIRECTORY"]
            raise RuntimeError("a benchmark failed")

    with pytest.raises(RuntimeError):
        fail()
    assert log.read_text().split() == [folder, "-d", folder, "quit"]
    assert "CUDA_MPS_PIPE_DIRECTORY" not in os.environ


def test_variables_are_put_back(monkeypatch):
    monkeypatch.setenv("RP_A", "before")
    with _environment({"RP_A": "now", "RP_B": "now"}):
        assert (os.environ["RP_A"], os.environ["RP_B"]) == ("now", "now")
    assert os.environ["RP_A"] == "before"
    assert "RP_B" not in os.environ


def test_ways_are_compared_with_the_grouped_one():
    head, two, grouped = lines({WAYS[2].name: [50.0, 40.0, 60.0], WAYS[-1].name: [100.0]}, WORK)
    assert head.split()[-3:] == ["over", "grouped", "spread"]
    assert two.split()[-7:] == ["50.0", "10.000", "0.500", "x", "40.0", "-", "60.0"]
    assert "1.000 x" in grouped
