"""What people type, and what they get when it is wrong."""

import os
import signal
import subprocess
import sys
import time

import pytest


def test_dry_run_prints_workers_pools_and_links_and_leaves_nothing(runpipe, tmp_path):
    done = runpipe("--config", "demo.yaml", "--set", "model.weights=random:0:tiny", "--dry-run")
    assert done.returncode == 0, done.stderr
    assert "59 frame pairs in 30 items" in done.stdout
    for worker in ("read/0", "encode/0", "denoise/0", "decode/0", "write/0"):
        assert worker in done.stdout
    assert "tokens_dec" in done.stdout
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--config", "dmeo.yaml"], "dmeo.yaml: no such config"),
        (["--config", "demo.yaml", "--input", "none.mp4"], "none.mp4: no such input"),
        (["--config", "demo.yaml", "--set", "video.piars=4"], "did you mean `pairs`?"),
        (["--config", "demo.yaml", "--set", "stages.denoise.gpu=[0]"], "did you mean `gpus`?"),
        (["--config", "demo.yaml", "--output", "here.mp4"], "here.mp4: exists; say --overwrite"),
        (["--config", "demo.yaml", "--output", "no/where.mp4"], "there is no folder"),
        (
            ["--config", "demo.yaml", "--set", "model.weights=eden.pt"],
            "eden.pt",
        ),
        (["--config", "single_gpu.yaml", "--input", "here.mp4"], "no output"),
        (
            ["--config", "single_gpu.yaml", "--input", "here.mp4", "--output", "o.mp4"],
            "this host has none",
        ),
        (["--config", "demo.yaml", "--input", "here.mp4"], "not a video"),
        (["--confg", "demo.yaml"], "No such option"),
    ],
)
def test_a_mistake_is_one_clear_line_exit_code_2_and_nothing_left(
    runpipe, tmp_path, arguments, complaint
):
    if "single_gpu.yaml" in arguments and os.path.exists("/dev/nvidia0"):
        pytest.skip("this host has a GPU")
    (tmp_path / "here.mp4").write_text("mine")
    done = runpipe(*arguments)
    assert done.returncode == 2, done.stderr
    assert complaint in done.stderr
    assert "Traceback" not in done.stderr
    assert [path.name for path in tmp_path.iterdir() if path.name != "runs"] == ["here.mp4"]
    assert not list(tmp_path.glob("runs/*"))
    assert (tmp_path / "here.mp4").read_text() == "mine"


SLOW = """
pipeline: fake
stages:
  read: {use: "tests.fakes:Numbers"}
  add: {use: "tests.fakes:Add", with: {delay_s: 2.0}}
  write: {use: "tests.fakes:Lines"}
run: {stop_grace_s: 1}
"""


@pytest.mark.parametrize(("signum", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_the_run_with_its_exit_code(tmp_path, project, numbers, signum, code):
    (tmp_path / "slow.yaml").write_text(SLOW)
    arguments = ["--config", "slow.yaml", "--input", numbers(500), "--output", "out.txt"]
    with subprocess.Popen(
        [sys.executable, "-P", "-m", "runtime.cli", *map(str, arguments), "--run-dir", "run"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(project)},
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        deadline = time.monotonic() + 20
        while not (tmp_path / "run/segments").exists() and time.monotonic() < deadline:
            time.sleep(0.02)
        process.send_signal(signum)
        _out, errors = process.communicate(timeout=20)
    assert process.returncode == code, errors
    assert f"interrupted by {signal.Signals(signum).name}" in errors
    assert '"status": "interrupted"' in (tmp_path / "run/report.json").read_text()
