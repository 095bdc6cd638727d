import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.waiting import wait_until

PROJECT = Path(__file__).resolve().parents[2]
WORKERS = ("read/0", "add/0", "write/0")
FILES = ("read.0", "add.0", "write.0", "supervisor")

SLOW = """
pipeline: fake
stages:
  read: {use: "tests.fakes:Numbers"}
  add: {use: "tests.fakes:Add", with: {delay_s: 0.05}}
  write: {use: "tests.fakes:Lines"}
"""

RUN = """
import signal, sys
from runtime.config import load_config
from runtime.pipeline import Pipeline
signal.signal(signal.SIGTERM, signal.default_int_handler)
folder = sys.argv[1]
with Pipeline(load_config(f"{folder}/slow.yaml")) as pipeline:
    pipeline.run(input=f"{folder}/in.txt", output=f"{folder}/out", run_dir=f"{folder}/run")
"""

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory):
    """Return the directory of a run that goes on for longer than these tests."""
    folder = tmp_path_factory.mktemp("profiled")
    (folder / "slow.yaml").write_text(SLOW)
    (folder / "in.txt").write_text("100000")
    with (
        (folder / "log").open("w") as log,
        subprocess.Popen(
            [sys.executable, "-P", "-c", RUN, folder],
            env={**os.environ, "PYTHONPATH": str(PROJECT)},
            stderr=log,
        ) as supervisor,
    ):
        segments = folder / "run/segments"
        try:
            wait_until(lambda: segments.exists() and any(segments.iterdir()))
            yield folder / "run"
        finally:
            supervisor.terminate()


@pytest.fixture
def profile(project):
    """Run tools/profile.sh; return the finished process."""

    def run(*arguments, **more):
        command = [project / "tools/profile.sh", *map(str, arguments)]
        return subprocess.run(command, capture_output=True, text=True, check=False, **more)

    return run


def pid_of(run_dir, worker):
    return json.loads((run_dir / "workers.json").read_text())[worker]


def test_every_worker_and_the_supervisor_get_a_flame_graph_and_a_speedscope_file(profile, run_dir):
    done = profile("--seconds", 1, run_dir)
    assert done.returncode == 0, done.stderr
    folder = run_dir / "profile"
    expected = {folder / f"{name}{end}" for name in FILES for end in (".svg", ".speedscope.json")}
    assert set(map(Path, done.stdout.split())) == expected == set(folder.iterdir())
    assert all("<svg" in path.read_text()[:1000] for path in folder.glob("*.svg"))
    for worker in ("read.0", "add.0", "write.0"):
        scope = json.loads((folder / f"{worker}.speedscope.json").read_text())
        files = {frame["file"] for frame in scope["shared"]["frames"]}
        assert any(file.endswith("runtime/worker.py") for file in files), files
        assert any(one["samples"] for one in scope["profiles"])


def test_dump_prints_the_stacks_of_all_also_of_a_stopped_worker(profile, run_dir):
    stopped = pid_of(run_dir, "add/0")
    os.kill(stopped, signal.SIGSTOP)
    try:
        wait_until(lambda: "\nState:\tT" in Path(f"/proc/{stopped}/status").read_text())
        done = profile("--dump", run_dir)
    finally:
        os.kill(stopped, signal.SIGCONT)
    assert done.returncode == 0, done.stderr
    stacks = dict(part.split(" ", 1) for part in done.stdout.split("=== ")[1:])
    assert list(stacks) == [*WORKERS, "supervisor"]
    assert all("runtime/worker.py" in stacks[worker] for worker in WORKERS)
    assert "runtime/supervisor.py" in stacks["supervisor"]


def test_a_worker_that_is_gone_is_said_and_the_others_are_shown(profile, run_dir, tmp_path):
    pids = {"add/0": pid_of(run_dir, "add/0"), "read/0": pid_of(run_dir, "add/0")}
    (tmp_path / "workers.json").write_text(json.dumps(pids))  # read/0's number is another's by now
    done = profile("--dump", tmp_path)
    assert "read/0: pid" in done.stderr
    assert "is gone" in done.stderr
    assert "=== add/0" in done.stdout
    assert "=== read/0" not in done.stdout


def test_a_run_that_is_over_has_nothing_to_sample(profile, tmp_path):
    (tmp_path / "workers.json").write_text('{\n  "add/0": 4194305\n}\n')
    done = profile(tmp_path)
    assert done.returncode == 1
    assert "none of its workers runs" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--dump"], "which run?"),
        (["--dump", "{folder}"], "there is no workers.json in it"),
        (["--seconds", "1.5x", "{folder}"], "--seconds wants a whole number, not '1.5x'"),
        (["--flames", "{folder}"], "--flames: no such option"),
    ],
)
def test_a_mistake_is_exit_2_and_one_line(profile, tmp_path, arguments, complaint):
    done = profile(*(word.format(folder=tmp_path) for word in arguments))
    assert done.returncode == 2
    assert complaint in done.stderr
    assert done.stderr.count("\n") == 1
    assert done.stdout == ""


def test_no_right_to_look_into_a_process_is_explained_once(profile, run_dir, tmp_path):
    refuses = (
        "#!/bin/sh\necho 'Permission Denied: Try running again with elevated permissions'; exit 1"
    )
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/py-spy").write_text(refuses)
    (tmp_path / "bin/py-spy").chmod(0o755)
    done = profile(run_dir, env={**os.environ, "VIRTUAL_ENV": str(tmp_path)})
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    for way_out in ("sudo", "ptrace_scope", "--cap-add SYS_PTRACE"):
        assert way_out in done.stderr


def test_ctrl_c_keeps_what_was_sampled(run_dir, project, tmp_path):
    (tmp_path / "workers.json").write_text((run_dir / "workers.json").read_text())
    command = [project / "tools/profile.sh", "--seconds", "60", tmp_path]
    with subprocess.Popen(
        command, start_new_session=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as script:
        time.sleep(1.5)  # it says nothing once py-spy samples; too early, and there is nothing
        os.killpg(script.pid, signal.SIGINT)
        printed, _said = script.communicate(timeout=10)
    assert script.returncode == 130
    assert set(map(Path, printed.split())) == {tmp_path / f"profile/{name}.svg" for name in FILES}
