"""Faults at the edges of a run: while it is made ready, made durable, joined, reported, stopped."""

import os
import signal
import threading
import time

import pytest

from runtime.config import parse_config
from runtime.errors import (
    ConfigError,
    PlanError,
    RunIncomplete,
    RunpipeError,
    StageFailed,
    WorkerDied,
)
from runtime.fleet import Fleet
from runtime.host import probe_host
from runtime.pipeline import Pipeline
from runtime.plan import plan_workers
from runtime.report import load_report
from runtime.run_dir import kept_to_ourselves, make_run_dir
from tests.striking import never_back


def config(**stages):
    usual = {"read": "tests.fakes:Numbers", "add": "tests.fakes:Add", "write": "tests.fakes:Lines"}
    named = {name: {"use": use} for name, use in usual.items()} | stages
    return parse_config({"pipeline": "fake", "stages": named})


def run(pipeline, source, folder, **options):
    return pipeline.run(input=source, output=folder / "out", run_dir=folder / "run", **options)


def test_an_error_that_quotes_a_tensor_is_cut_and_not_lost(numbers, tmp_path):
    """Lost in the socket, it left the run waiting for ever: the worker was alive and well."""
    with (
        Pipeline(config(add={"use": "tests.runtime.faulty:QuotesItsTensor"})) as pipeline,
        pytest.raises(RunIncomplete, match=r"no such number: 7 .*characters left out") as caught,
    ):
        run(pipeline, numbers(5), tmp_path)
    assert len(str(caught.value)) < 3000


@pytest.mark.parametrize("inline", [False, True])
def test_an_item_that_finds_no_memory_is_left_out_and_the_report_says_so(numbers, tmp_path, inline):
    full = config(add={"use": "tests.runtime.faulty:FindsNoMemory"})
    with (
        Pipeline(full, inline=inline) as pipeline,
        pytest.raises(RunIncomplete, match=r"^1 of 5 items failed.*MemoryError: out of memory"),
    ):
        run(pipeline, numbers(5), tmp_path)
    report = load_report(tmp_path / "run/report.json")
    assert (report.items.done, report.items.failed) == (4, 1)
    (failure,) = report.failures
    assert (failure.stage, failure.item) == ("add", 3)
    assert failure.reason.endswith(" on item 3: MemoryError: out of memory")
    assert (
        (tmp_path / "out").read_text().splitlines()[3].endswith("add: MemoryError: out of memory")
    )


@pytest.mark.parametrize("inline", [False, True])
def test_a_segment_that_cannot_be_made_durable_says_why(numbers, tmp_path, inline):
    full = config(write={"use": "tests.runtime.faulty:FindsTheDiskFull"})
    with (
        Pipeline(full, inline=inline) as pipeline,
        pytest.raises(StageFailed, match=r"stage write failed .* on item 0: OSError: .* No space"),
    ):
        run(pipeline, numbers(5), tmp_path)
    (failure,) = load_report(tmp_path / "run/report.json").failures
    assert "in commit" in failure.traceback


def test_what_is_durable_stays_when_the_sink_refuses_to_finish(numbers, tmp_path):
    with (
        Pipeline(config(write={"use": "tests.runtime.faulty:RefusesToFinish"})) as pipeline,
        pytest.raises(ConfigError, match="exists already"),
    ):
        run(pipeline, numbers(5), tmp_path)
    assert len(list((tmp_path / "run/segments").iterdir())) == 3
    report = load_report(tmp_path / "run/report.json")
    assert (report.status, report.items.done, report.units.done) == ("failed", 5, 5)
    assert report.failures[0].reason == "out.txt: exists already"


def test_a_report_counts_units_as_it_counts_items(make_config, numbers, tmp_path, monkeypatch):
    """A number that was written into a segment that is still open is lost with it."""
    monkeypatch.setattr("runtime.restarts.BACK_OFF_S", 0.05)
    fails = make_config(add=never_back(tmp_path, at=7), sink={"replicas": 2})
    with Pipeline(fails) as pipeline, pytest.raises(WorkerDied):
        run(pipeline, numbers(50), tmp_path)
    report = load_report(tmp_path / "run/report.json")
    assert 0 < report.items.done < 7
    assert report.units.done == report.items.done
    assert report.units.failed == 0, "what was not reached has not failed"


def test_every_replica_of_the_source_opens_the_input(make_config, numbers, tmp_path):
    whole = make_config(
        source={"replicas": 2},
        add={"use": "Add", "replicas": 2},
        sink={"replicas": 2},
        groups=(("read", "add", "write"),),
    )
    with Pipeline(whole) as pipeline:
        report = run(pipeline, numbers(20), tmp_path)
    assert report.items.done == 20
    assert len((tmp_path / "out").read_text().splitlines()) == 20


def test_an_input_without_items_is_refused(make_config, numbers, tmp_path):
    with Pipeline(make_config()) as pipeline, pytest.raises(ConfigError, match="nothing in it"):
        run(pipeline, numbers(0), tmp_path)


@pytest.mark.parametrize(
    ("read", "fits", "complaint"),
    [
        ("tests.fakes:Sized", 0, "items of size 8 do not fit, nor do smaller ones"),
        ("tests.runtime.faulty:OneSize", 3, "3 is taken, and the source makes none so small"),
    ],
)
def test_items_that_cannot_be_small_enough_are_refused(numbers, tmp_path, read, fits, complaint):
    sized = config(
        read={"use": read, "with": {"size": 8}},
        add={"use": "tests.fakes:FitsOnly", "with": {"fits": fits}},
    )
    with Pipeline(sized) as pipeline, pytest.raises(PlanError, match=complaint):
        run(pipeline, numbers(20), tmp_path)


def test_a_warning_is_of_the_job_that_it_is_about(make_config, numbers, tmp_path):
    shrinks = make_config(
        source={"use": "Sized", "with": {"size": 8}}, add={"use": "FitsOnly", "with": {"fits": 3}}
    )
    with Pipeline(shrinks) as pipeline:
        first = pipeline.run(input=numbers(20), output=tmp_path / "a", run_dir=tmp_path / "run a")
        second = pipeline.run(input=numbers(20), output=tmp_path / "b", run_dir=tmp_path / "run b")
    assert len(first.warnings) == 1
    assert second.warnings == (), "its items were of size 3 from the start"


def test_a_plan_that_is_refused_leaves_a_pipeline_that_can_plan(make_config, numbers, tmp_path):
    (tmp_path / "bad.txt").write_text("many")
    with Pipeline(make_config()) as pipeline:
        with pytest.raises(ConfigError, match="found 'many'"):
            pipeline.plan(input=tmp_path / "bad.txt", output=tmp_path / "o", run_dir=tmp_path)
        opened = pipeline.plan(input=numbers(5), output=tmp_path / "o", run_dir=tmp_path)
    assert opened.num_units == 5


def test_a_worker_is_not_charged_for_the_memory_of_who_started_it(make_config, numbers, tmp_path):
    ballast = bytearray(b"1" * 300 * 2**20)
    with Pipeline(make_config()) as pipeline:
        report = run(pipeline, numbers(5), tmp_path)
    assert len(ballast) > 0
    assert all(0 < worker.max_rss_bytes < 200 * 2**20 for worker in report.workers)


def test_a_second_ctrl_c_while_workers_are_stopped_leaves_none(
    make_config, numbers, tmp_path, monkeypatch
):
    pipeline = Pipeline(make_config())
    report = run(pipeline, numbers(5), tmp_path)

    def interrupted(_workers, _grace_s):
        raise KeyboardInterrupt

    monkeypatch.setattr("runtime.stopping._wait_for_exits", interrupted)
    with pytest.raises(KeyboardInterrupt):
        pipeline.close()
    for worker in report.workers:
        assert not os.path.exists(f"/proc/{worker.pid}"), "killed, and reaped too"


def test_workers_that_have_to_be_killed_are_in_the_log_of_the_run(make_config, numbers, tmp_path):
    deaf = make_config(add={"use": "DeafToStop"}, run={"stop_grace_s": 0.2})
    threads = []

    def interrupt_while_item_1_runs(live):
        def interrupt():
            while live.tally.units_done == 0:
                time.sleep(0.01)
            os.kill(os.getpid(), signal.SIGINT)

        threads.append(threading.Thread(target=interrupt))
        threads[0].start()

    with Pipeline(deaf) as pipeline, pytest.raises(RunpipeError, match="interrupted by SIGINT"):
        run(pipeline, numbers(5), tmp_path, on_start=interrupt_while_item_1_runs)
    threads[0].join()
    assert "stopping worker=add/0 by SIGKILL" in (tmp_path / "run/logs/supervisor.log").read_text()


def test_a_temporary_folder_too_deep_for_sockets_is_refused_with_the_way_out(
    make_config, numbers, tmp_path, monkeypatch
):
    deep = tmp_path / ("x" * 100)
    deep.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(deep))
    with Pipeline(make_config()) as pipeline, pytest.raises(ConfigError, match="set TMPDIR"):
        run(pipeline, numbers(5), tmp_path)
    assert list(deep.iterdir()) == []


def test_runs_that_start_in_one_second_get_folders_of_their_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    made = []

    def make():
        made.append(make_run_dir(None, pipeline="fake"))

    threads = [threading.Thread(target=make) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({folder for folder, _is_new in made}) == 20
    assert all(is_new for _folder, is_new in made)


def test_a_run_directory_is_one_runs_from_the_start(make_config, numbers, tmp_path):
    """Its journal is made late, when weights are loaded: until then nothing told of the other."""
    (tmp_path / "run").mkdir()
    with (
        kept_to_ourselves(tmp_path / "run"),
        Pipeline(make_config()) as pipeline,
        pytest.raises(ConfigError, match="another run is using this directory"),
    ):
        run(pipeline, numbers(5), tmp_path)
    assert list((tmp_path / "run").iterdir()) == []


def test_a_run_directory_that_cannot_be_is_refused(make_config, numbers, tmp_path):
    (tmp_path / "run").write_text("a file")
    with Pipeline(make_config()) as pipeline, pytest.raises(ConfigError, match="cannot make this"):
        run(pipeline, numbers(5), tmp_path)


def test_pools_are_compared_with_the_memory_that_is_left_when_they_are_made(
    make_config, numbers, tmp_path, monkeypatch
):
    """Weights have been loaded since the plan was made; another job may have come too."""
    monkeypatch.setattr("runtime.pools.usable_memory", lambda _root: 100)
    with Pipeline(make_config()) as pipeline, pytest.raises(PlanError, match="GiB are left"):
        run(pipeline, numbers(5), tmp_path)
    assert not (tmp_path / "run").exists()


def test_a_report_that_cannot_be_written_does_not_hide_why_the_run_failed(
    make_config, numbers, tmp_path, monkeypatch
):
    def full(path, report):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("runtime.run.write_report", full)
    fails = make_config(add={"use": "RaisesAt", "with": {"poison": 3}})
    with Pipeline(fails) as pipeline, pytest.raises(RunIncomplete, match="on item 3"):
        run(pipeline, numbers(5), tmp_path)
    with (
        Pipeline(make_config()) as pipeline,
        pytest.raises(RunpipeError, match=r"report.json: cannot be written: No space"),
    ):
        pipeline.run(input=numbers(5), output=tmp_path / "b", run_dir=tmp_path / "run b")


def test_a_process_that_is_still_starting_has_not_hung(tmp_path):
    """Seen on a busy machine with a `hang_s` of 1.5: Python takes its time, and says nothing."""
    workers, _warnings = plan_workers(config(), probe_host())
    with Fleet(run_dir=tmp_path, hang_s=0.001, stop_grace_s=10) as fleet:
        fleet.start(workers)
        assert set(fleet.pids()) == {"read/0", "add/0", "write/0"}
