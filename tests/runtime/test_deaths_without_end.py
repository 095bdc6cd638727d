"""Who dies again and again: an item that kills is failed alone; a worker that cannot live ends all.

And what a run with deaths leaves to the next one in the same pipeline.
"""

import time

import pytest

from runtime.errors import RunIncomplete, StageFailed, WorkerDied
from runtime.pipeline import Pipeline
from runtime.report import load_report
from tests.runtime.replay_runs import (
    NUM_ITEMS,
    Case,
    check_folder,
    check_whole,
    journaled,
    restarts,
    run,
)
from tests.striking import ALWAYS

pytestmark = pytest.mark.slow
POISON = 9


def strikes(at, **options):
    return {"strike": {"at": at, **options}}


@pytest.fixture
def soon(monkeypatch):
    """Try again soon what is tried again later each time."""
    monkeypatch.setattr("runtime.restarts.BACK_OFF_S", 0.05)
    monkeypatch.setattr("runtime.recovery.DELAY_S", 0.05)


def check_failed(case, source, stage, *, items=(POISON,), raised=()):
    """Run a case of which `items` kill and `raised` raise; check that no other is touched."""
    with pytest.raises(RunIncomplete, match=f"^{len(items) + len(raised)} of {NUM_ITEMS} items"):
        case.run(source)
    lines, wanted = case.output().splitlines(), case.undisturbed_lines(source)
    differing = [n for n, pair in enumerate(zip(lines, wanted, strict=True)) if pair[0] != pair[1]]
    assert differing == sorted(items)
    assert all(f"|{stage}: it killed its worker twice" in lines[item] for item in items)
    report = load_report(case.folder / "run/report.json")
    num_failed = len(items) + len(raised)
    assert (report.status, report.items.failed) == ("failed", num_failed)
    assert (report.items.done, report.units.failed) == (NUM_ITEMS - num_failed, num_failed)
    assert sorted(one.item for one in report.failures) == sorted([*items, *raised])
    assert set(journaled(case.folder).values()) == {1}
    check_folder(case.folder)
    return report


@pytest.mark.parametrize("how", ["SIGKILL", pytest.param("exit 0", marks=pytest.mark.nightly)])
@pytest.mark.parametrize("stage", ["read", "second", "write"])
def test_an_item_that_kills_at_every_attempt_is_failed_alone(numbers, tmp_path, stage, how):
    case = Case(tmp_path, **{stage: strikes(POISON, how=how, times=ALWAYS)})
    report = check_failed(case, numbers(NUM_ITEMS), stage)
    assert restarts(report) == {f"{stage}/0": 2}
    (failure,) = report.failures
    assert (failure.stage, failure.worker) == (stage, f"{stage}/0")


def test_an_item_that_kills_replicas_is_failed_alone(numbers, tmp_path):
    case = Case(tmp_path, second={"replicas": 2, **strikes(POISON, times=ALWAYS)})
    report = check_failed(case, numbers(NUM_ITEMS), "second")
    assert sum(restarts(report).values()) in (1, 2), "the last may not be needed any more"


def test_items_that_kill_different_workers_are_failed_alone(numbers, tmp_path):
    case = Case(
        tmp_path, first=strikes(POISON, times=ALWAYS), third=strikes(POISON + 3, times=ALWAYS)
    )
    with pytest.raises(RunIncomplete, match=f"^2 of {NUM_ITEMS} items"):
        case.run(numbers(NUM_ITEMS))
    lines = case.output().splitlines()
    assert "|first: it killed its worker twice" in lines[POISON]
    assert "|third: it killed its worker twice" in lines[POISON + 3]
    kept = [n for n, line in enumerate(case.undisturbed_lines(numbers(24))) if line == lines[n]]
    assert len(kept) == NUM_ITEMS - 2


def test_an_item_that_raised_and_is_done_again_is_counted_once(numbers, tmp_path):
    """It lies in the open segment of a sink that dies, and raises again."""
    case = Case(tmp_path, second={"with": {"raises_at": POISON}}, write=strikes(POISON + 1))
    with pytest.raises(RunIncomplete, match=f"^1 of {NUM_ITEMS} items failed; stage second"):
        case.run(numbers(NUM_ITEMS))
    report = load_report(tmp_path / "run/report.json")
    assert (report.items.done, report.items.failed) == (NUM_ITEMS - 1, 1)
    assert (report.units.done, report.units.failed) == (NUM_ITEMS - 1, 1)
    assert [failure.item for failure in report.failures] == [POISON]
    assert report.items.replayed > 0
    assert restarts(report) == {"write/0": 1}


def test_an_item_that_kills_even_when_it_is_given_up_ends_the_run(numbers, tmp_path):
    write = {"use": "tests.striking:KillsEvenMarked", **strikes(POISON, times=3)}
    folder = tmp_path / "next"
    folder.mkdir()
    with Pipeline(Case(tmp_path, write=write).config()) as pipeline:
        with pytest.raises(WorkerDied, match=r"write/0 died \(killed by signal 9, SIGKILL\)"):
            run(pipeline, numbers(NUM_ITEMS), tmp_path)
        check_whole(run(pipeline, numbers(7), folder), folder, num_items=7)  # with new workers
    report = load_report(tmp_path / "run/report.json")
    assert (report.status, report.items.failed) == ("failed", 1)
    assert restarts(report) == {"write/0": 2}
    assert report.items.done == 8, "two segments were durable"
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("how", "error", "message"),
    [
        ("raise", StageFailed, "stage second failed in worker second/0: OSError: weights: no"),
        ("exit 7", WorkerDied, r"second/0 died \(exit code 7\)"),
    ],
)
def test_three_starts_that_fail_end_the_run(numbers, tmp_path, soon, how, error, message):
    second = {"use": "tests.striking:Starts", **strikes(POISON, starts={"again": how})}
    with pytest.raises(error, match=message):
        Case(tmp_path, second=second).run(numbers(NUM_ITEMS))
    report = load_report(tmp_path / "run/report.json")
    assert report.status == "failed"
    assert restarts(report) == {}
    assert len(list((tmp_path / "marks").iterdir())) == 1 + 1 + 3, "the strike, and the starts"
    assert not (tmp_path / "out").exists()


def test_a_worker_that_exits_with_nothing_to_do_ends_the_run(numbers, tmp_path, soon):
    """Nothing gets there meanwhile: the source takes its time."""
    case = Case(
        tmp_path,
        read={"with": {"delay_s": 600.0}},
        second={"use": "tests.striking:EndsIdle", "strike": {}},
        run={"stop_grace_s": 0.2},
    )
    began = time.monotonic()
    with pytest.raises(WorkerDied, match=r"second/0 died \(exit code 7\)"):
        case.run(numbers(NUM_ITEMS))
    assert time.monotonic() - began < 60
    assert len(list((tmp_path / "marks").iterdir())) >= 3
    assert load_report(tmp_path / "run/report.json").items.done == 0


def test_the_next_job_of_a_pipeline_runs_with_those_who_came_back(numbers, tmp_path):
    case = Case(tmp_path, second=strikes(POISON))
    source = numbers(NUM_ITEMS)
    folder = tmp_path / "next"
    folder.mkdir()
    with Pipeline(case.config()) as pipeline:
        first = run(pipeline, source, tmp_path)
        second = run(pipeline, source, folder)
    check_whole(first, tmp_path)
    check_whole(second, folder)
    assert (restarts(first), restarts(second)) == ({"second/0": 1}, {})
    assert second.items.replayed == 0
    pids = [{worker.name: worker.pid for worker in report.workers} for report in (first, second)]
    assert pids[0] == pids[1], "nobody was started for it"
    assert (folder / "out").read_text() == case.output() == case.undisturbed(source)
    assert {worker.items for worker in second.workers} == {NUM_ITEMS}


def test_a_job_after_one_with_failed_items_and_deaths_is_whole(numbers, tmp_path):
    """Its marks are gone by then, so that nothing strikes again."""
    case = Case(tmp_path, second=strikes(POISON, times=2))
    folder = tmp_path / "next"
    folder.mkdir()
    with Pipeline(case.config()) as pipeline:
        with pytest.raises(RunIncomplete):
            run(pipeline, numbers(NUM_ITEMS), tmp_path)
        report = run(pipeline, numbers(7), folder)
    check_whole(report, folder, num_items=7)
    assert restarts(report) == {}
