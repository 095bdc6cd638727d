"""What a user sees when something dies, hangs, raises or keeps what it was lent."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from runtime.errors import RunIncomplete, StageFailed, WorkerDied
from runtime.pipeline import Pipeline
from runtime.report import load_report
from tests.striking import never_back
from tests.waiting import wait_until


@pytest.mark.parametrize(
    ("stage", "how"),
    [
        ("KilledAt", r"killed by signal 9, SIGKILL"),
        ("SegfaultsAt", r"killed by signal 11, SIGSEGV"),
        ("ExitsAt", r"exit code 7"),
    ],
)
def test_an_item_that_kills_its_worker_twice_is_failed_alone_and_says_how(
    make_config, numbers, tmp_path, stage, how
):
    config = make_config(add={"use": stage, "with": {"poison": 7}})
    why = rf"on item 7: it killed its worker twice, at last so: worker add/0 died \({how}\); see "
    with Pipeline(config) as pipeline, pytest.raises(RunIncomplete, match=why):
        pipeline.run(input=numbers(50), output=tmp_path / "out", run_dir=tmp_path / "run")
    lines = (tmp_path / "out").read_text().splitlines()
    assert [number for number, line in enumerate(lines) if "killed" in line] == [7]
    assert len(lines) == 50
    report = load_report(tmp_path / "run/report.json")
    assert (report.status, report.items.done, report.items.failed) == ("failed", 49, 1)
    assert [(failure.worker, failure.item) for failure in report.failures] == [("add/0", 7)]
    workers = {worker.name: worker for worker in report.workers}
    assert [worker.restarts for worker in report.workers] == [0, 2, 0]
    assert workers["read/0"].items >= 50, "it has read some of them twice"
    assert workers["read/0"].cpu_user_s > 0
    assert workers["add/0"].max_rss_bytes > 0, "of the dead the last heartbeats are known"
    assert [link.receiver for link in report.links if link.sender == "add/0"] == ["write/0"]


@pytest.mark.parametrize("inline", [False, True])
@pytest.mark.parametrize(("poison", "stage"), [(3, "add"), (49, "add"), (3, "read"), (0, "read")])
def test_an_item_that_raises_is_left_out_alone_and_the_run_fails_at_its_end(
    make_config, numbers, tmp_path, poison, stage, inline
):
    use = {"use": "RaisesAt" if stage == "add" else "ReadsAllBut", "with": {"poison": poison}}
    config = make_config(**{"add" if stage == "add" else "source": use}, sink={"replicas": 2})
    with (
        Pipeline(config, inline=inline) as pipeline,
        pytest.raises(
            RunIncomplete,
            match=f"^1 of 50 items failed; stage {stage} failed in worker {stage}/0 on item "
            f"{poison}: ValueError: frame pair has 3 frames; what could be done is in .*/out",
        ),
    ):
        pipeline.run(input=numbers(50), output=tmp_path / "out", run_dir=tmp_path / "run")
    lines = (tmp_path / "out").read_text().splitlines()
    assert len(lines) == 50
    assert [line for line in lines if "ValueError" in line] == [lines[poison]]
    report = load_report(tmp_path / "run/report.json")
    assert (report.status, report.items.done, report.items.failed) == ("failed", 49, 1)
    assert (report.units.done, report.units.failed) == (49, 1)
    (failure,) = report.failures
    assert (failure.item, failure.stage) == (poison, stage)
    assert "in die" in failure.traceback


@pytest.mark.parametrize("inline", [False, True])
def test_a_run_of_which_nothing_could_be_done_leaves_no_output(
    make_config, numbers, tmp_path, inline
):
    config = make_config(add={"use": "RaisesAlways"})
    with (
        Pipeline(config, inline=inline) as pipeline,
        pytest.raises(
            RunIncomplete,
            match="none of 2 items could be done; stage add failed in worker add/0 on item 0: Val",
        ),
    ):
        pipeline.run(input=numbers(2), output=tmp_path / "out", run_dir=tmp_path / "run")
    assert not (tmp_path / "out").exists()
    report = load_report(tmp_path / "run/report.json")
    assert [failure.item for failure in report.failures] == [0, 1]
    assert (report.items.failed, report.units.done, report.units.failed) == (2, 0, 2)
    assert {worker.name: worker.items for worker in report.workers}["read/0"] == 2


def test_an_input_that_is_not_whole_is_done_as_far_as_it_goes_and_the_run_fails(
    make_config, numbers, tmp_path
):
    config = make_config(source={"use": "BrokenNumbers"})
    with (
        Pipeline(config) as pipeline,
        pytest.raises(RunIncomplete, match=r"torn at 9; what .* is in .*/out"),
    ):
        pipeline.run(input=numbers(9), output=tmp_path / "out", run_dir=tmp_path / "run")
    assert len((tmp_path / "out").read_text().splitlines()) == 9
    report = load_report(tmp_path / "run/report.json")
    assert (report.status, report.items.failed, report.warnings) == ("failed", 0, ("half a file",))
    assert "torn at 9" in report.failures[0].reason


def test_a_pipeline_keeps_its_workers_after_failed_items(make_config, numbers, tmp_path):
    config = make_config(add={"use": "RaisesAt", "with": {"poison": 20}})
    with Pipeline(config) as pipeline:
        with pytest.raises(RunIncomplete):
            pipeline.run(input=numbers(50), output=tmp_path / "a", run_dir=tmp_path / "run a")
        second = pipeline.run(input=numbers(10), output=tmp_path / "b", run_dir=tmp_path / "run b")
    assert len((tmp_path / "b").read_text().splitlines()) == 10
    first = load_report(tmp_path / "run a/report.json")
    assert [worker.pid for worker in first.workers] == [worker.pid for worker in second.workers]


def test_a_worker_that_stands_still_is_found_by_its_missing_heartbeat(
    make_config, numbers, tmp_path
):
    config = make_config(
        add={"use": "StopsAt", "with": {"poison": 3}}, run={"hang_s": 1.5, "stop_grace_s": 0.2}
    )
    why = r"on item 3: it killed its worker twice, at last so: worker add/0 hung \(no heartbeat for"
    with Pipeline(config) as pipeline, pytest.raises(RunIncomplete, match=why):
        pipeline.run(input=numbers(50), output=tmp_path / "out", run_dir=tmp_path / "run")


def test_a_stage_that_cannot_load_stops_the_run_before_any_item(make_config, numbers, tmp_path):
    config = make_config(add={"use": "FailsToLoad"})
    with (
        Pipeline(config) as pipeline,
        pytest.raises(StageFailed, match="stage add failed in worker add/0: OSError: weights: no"),
    ):
        pipeline.run(input=numbers(5), output=tmp_path / "out", run_dir=tmp_path / "run")


def test_writing_an_input_is_refused_because_others_read_it_too(make_config, numbers, tmp_path):
    config = make_config(add={"use": "WritesItsInput"})
    with Pipeline(config) as pipeline, pytest.raises(RunIncomplete, match="read-only"):
        pipeline.run(input=numbers(5), output=tmp_path / "out", run_dir=tmp_path / "run")


def test_a_stage_that_keeps_a_view_is_found_out(make_config, numbers, tmp_path):
    config = make_config(add={"use": "KeepsAView"})
    with Pipeline(config) as pipeline, pytest.raises(StageFailed, match="kept a view"):
        pipeline.run(input=numbers(5), output=tmp_path / "out", run_dir=tmp_path / "run")


@pytest.mark.slow
def test_a_worker_deaf_to_stop_and_sigterm_is_killed(
    make_config, numbers, tmp_path, caplog, monkeypatch
):
    monkeypatch.setattr("runtime.restarts.BACK_OFF_S", 0.05)
    config = make_config(
        first={"use": "DeafToStop"},
        second=never_back(tmp_path, at=0, reads="y", writes="z"),
        sink={"with": {"reads": "z"}},
        run={"stop_grace_s": 0.3},
    )
    with Pipeline(config) as pipeline, pytest.raises(WorkerDied, match="second/0"):
        pipeline.run(input=numbers(5), output=tmp_path / "out", run_dir=tmp_path / "run")
    assert "stopping worker=first/0 by SIGKILL" in caplog.text


ORPHAN_MAKER = """
import sys
from runtime.config import load_config
from runtime.pipeline import Pipeline
config, source, folder = sys.argv[1:]
with Pipeline(load_config(config)) as pipeline:
    pipeline.run(input=source, output=f"{folder}/out", run_dir=f"{folder}/run")
"""

SLOW = """
pipeline: fake
stages:
  read: {use: "tests.fakes:Numbers"}
  add: {use: "tests.fakes:DeafToStop"}
  write: {use: "tests.fakes:Lines"}
"""


def test_workers_do_not_outlive_a_killed_supervisor(numbers, tmp_path, project):
    (tmp_path / "slow.yaml").write_text(SLOW)
    (tmp_path / "maker.py").write_text(ORPHAN_MAKER)
    workers, started = tmp_path / "run/workers.json", tmp_path / "run/segments"
    arguments = [tmp_path / "slow.yaml", numbers(5), tmp_path]
    with subprocess.Popen(
        [sys.executable, tmp_path / "maker.py", *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": str(project), "TMPDIR": str(tmp_path)},
    ) as supervisor:
        wait_until(started.exists)
        supervisor.send_signal(signal.SIGKILL)
    pids = json.loads(workers.read_text()).values()
    wait_until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in pids), timeout_s=2.0)
