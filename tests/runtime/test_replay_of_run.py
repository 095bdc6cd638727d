"""Runs in which a worker dies once: all is as if nobody had, but for what the report counts."""

import pytest

from tests.runtime.replay_runs import (
    NUM_ITEMS,
    Case,
    check_whole,
    journaled,
    restarts,
)

MIDDLE, LAST = NUM_ITEMS // 2 + 1, NUM_ITEMS - 1


def at_night(*values):
    """Return what others like it stand for in every commit's tests."""
    return pytest.param(*values, marks=pytest.mark.nightly)


def strikes(at, **options):
    return {"strike": {"at": at, **options}}


def check(case, source, num_items=NUM_ITEMS):
    """Run a case; check that it is whole, and that its output is right; return the report."""
    report = case.run(source)
    check_whole(report, case.folder, num_items)
    assert case.output() == case.undisturbed(source)
    return report


@pytest.mark.slow
@pytest.mark.parametrize(
    "how", ["SIGKILL", "segfault", "exit 0", at_night("exit 7"), at_night("SIGTERM")]
)
def test_however_a_worker_ends_it_is_replaced_and_nothing_is_lost(numbers, tmp_path, how):
    report = check(Case(tmp_path, second=strikes(MIDDLE, how=how)), numbers(NUM_ITEMS))
    assert restarts(report) == {"second/0": 1}
    assert report.items.replayed > 0


@pytest.mark.slow
def test_a_worker_that_stands_still_is_replaced(numbers, tmp_path):
    case = Case(tmp_path, run={"hang_s": 2.0}, second=strikes(MIDDLE, how="SIGSTOP"))
    report = check(case, numbers(NUM_ITEMS))
    assert restarts(report) == {"second/0": 1}
    assert report.items.replayed > 0


@pytest.mark.slow
@pytest.mark.parametrize(
    ("stage", "at"),
    [
        ("read", 0),
        ("first", MIDDLE),
        ("third", LAST),
        *(at_night("read", at) for at in (MIDDLE, LAST)),
        *(at_night("first", at) for at in (0, LAST)),
        *(at_night("third", at) for at in (0, MIDDLE)),
    ],
)
def test_whoever_dies_at_whichever_item(numbers, tmp_path, stage, at):
    report = check(Case(tmp_path, **{stage: strikes(at)}), numbers(NUM_ITEMS))
    assert restarts(report) == {f"{stage}/0": 1}
    assert report.items.replayed > 0


@pytest.mark.slow
@pytest.mark.parametrize("assign", ["round_robin", "least_loaded"])
@pytest.mark.parametrize("at", [at_night(1), MIDDLE, at_night(LAST)])
def test_one_of_two_replicas_dies(numbers, tmp_path, assign, at):
    second = {"replicas": 2, "assign": assign, **strikes(at)}
    report = check(Case(tmp_path, second=second), numbers(NUM_ITEMS))
    wanted = {"second/1"} if assign == "round_robin" else {"second/0", "second/1"}  # the odd ones
    assert restarts(report).keys() <= wanted, "the other may do all that is left before it is back"
    assert report.items.replayed > 0


@pytest.mark.slow
@pytest.mark.parametrize("at", [at_night(0), MIDDLE, at_night(LAST)])
@pytest.mark.parametrize("stage", ["first", "second", "third"])
def test_a_group_around_another_worker(numbers, tmp_path, stage, at):
    """What lies in the pool of the group, which items pass twice, is kept for those who read it."""
    case = Case(tmp_path, groups=[["first", "third"]], **{stage: strikes(at)})
    report = check(case, numbers(NUM_ITEMS))
    assert restarts(report) == {"second/0" if stage == "second" else "first+third/0": 1}


@pytest.mark.slow
@pytest.mark.parametrize("at", [0, MIDDLE, LAST, "commit"])
def test_a_replica_of_the_sink_dies_in_a_segment_or_at_its_end(numbers, tmp_path, at):
    report = check(Case(tmp_path, write={"replicas": 2, **strikes(at)}), numbers(NUM_ITEMS))
    assert sum(restarts(report).values()) == 1
    assert report.items.replayed > 0


@pytest.mark.slow
def test_the_sink_dies_while_it_joins(numbers, tmp_path):
    report = check(Case(tmp_path, write={"replicas": 2, **strikes("finish")}), numbers(NUM_ITEMS))
    assert restarts(report) == {"write/0": 1}
    assert report.items.replayed == 0, "all of them were durable"


@pytest.mark.slow
@pytest.mark.parametrize(
    "others", ["first/0", "second/1", at_night("third/0"), at_night("read/0"), at_night("write/0")]
)
def test_two_die_at_the_same_moment(numbers, tmp_path, others):
    second = {"replicas": 2, "assign": "round_robin", **strikes(MIDDLE - 1, kills=others)}
    report = check(Case(tmp_path, second=second), numbers(NUM_ITEMS))
    assert restarts(report) == {"second/0": 1, others: 1}


@pytest.mark.slow
@pytest.mark.parametrize("other", ["first/0", at_night("third/0"), "write/0"])
def test_one_dies_while_another_one_is_on_its_way_back(numbers, tmp_path, other):
    second = {"use": "tests.striking:Starts"} | strikes(MIDDLE, starts={"1": f"kill {other}"})
    report = check(Case(tmp_path, second=second), numbers(NUM_ITEMS))
    assert restarts(report) == {"second/0": 1, other: 1}


@pytest.mark.slow
@pytest.mark.parametrize("how", ["raise", "exit 7", at_night("SIGKILL")])
def test_a_start_that_fails_is_tried_again(numbers, tmp_path, monkeypatch, how):
    monkeypatch.setattr("runtime.restarts.BACK_OFF_S", 0.05)
    second = {"use": "tests.striking:Starts"} | strikes(MIDDLE, starts={"1": how})
    report = check(Case(tmp_path, second=second), numbers(NUM_ITEMS))
    assert restarts(report) == {"second/0": 1}, "a failed start is none"
    assert len(list((tmp_path / "marks").glob("b starts.*"))) == 3


@pytest.mark.slow
def test_the_journal_says_in_which_attempt_each_item_was_done(numbers, tmp_path):
    report = check(Case(tmp_path, second=strikes(MIDDLE)), numbers(NUM_ITEMS))
    assert journaled(tmp_path).total() == NUM_ITEMS
    assert report.items.replayed <= NUM_ITEMS - MIDDLE + 4, "what was durable is not done again"


@pytest.mark.slow
def test_an_output_that_depends_on_the_attempt_is_found_out(numbers, tmp_path):
    """Else the equality that the other tests ask for would hold whatever is done."""
    case = Case(tmp_path, second={"with": {"mixes_attempt": True}, **strikes(MIDDLE)})
    case.run(numbers(NUM_ITEMS))
    wanted = case.undisturbed(numbers(NUM_ITEMS)).splitlines()
    differing = [
        number
        for number, (line, other) in enumerate(zip(case.output().splitlines(), wanted, strict=True))
        if line != other
    ]
    assert MIDDLE in differing
    assert 0 not in differing, "it was durable long before"
