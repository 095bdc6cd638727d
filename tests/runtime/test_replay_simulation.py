"""The real supervisor and the real items of workers, which die at random, without processes."""

from contextlib import ExitStack, nullcontext

import pytest

from ipc.errors import NoMemory
from runtime.config import parse_config
from runtime.errors import PlanError, StageFailed
from runtime.job_run import JobRun
from runtime.run_trace import RunTrace
from runtime.setup import OpenedJob
from runtime.tally import Tally
from runtime.under_way import Notes
from tests.runtime.played_fleet import NUM_ITEMS, PlayedFleet


def parse(*, replicas=1, sinks=1, sources=1, groups=()):
    """Four stages between source and sink, which reads what the source and the last one wrote."""
    stages = {"read": {"use": "tests.fakes:Numbers", "replicas": sources}}
    for name, reads, writes in (("a", "x", "p"), ("b", "p", "q"), ("c", "q", "r")):
        use = {"use": "tests.fakes:Add", "with": {"reads": reads, "writes": writes}}
        stages[name] = use | {"replicas": replicas}
    sink = {"use": "tests.fakes:Lines", "with": {"reads": "x r"}, "replicas": sinks}
    return parse_config({"pipeline": "fake", "stages": stages | {"write": sink}, "groups": groups})


AT_NIGHT = [pytest.param(seed, marks=pytest.mark.nightly) for seed in range(4, 100)]
SHAPES = {
    "apart": {},
    "replicas": {"replicas": 2, "sinks": 2, "sources": 2},
    "around": {"groups": [["a", "c"]]},
    "replicas around": {"groups": [["a", "c"]], "replicas": 2, "sinks": 2},
    "one worker in between": {"groups": [["a", "b", "c"]], "replicas": 2},
}


def job_of(fleet, tally):
    opened = OpenedJob(
        job=fleet.job,
        facts=fleet.facts,
        item_size=1,
        unit="numbers",
        num_units=NUM_ITEMS,
        broken="",
        plan=fleet.plan,
    )
    return JobRun(fleet.config, fleet, opened, tally, RunTrace(enabled=False), number=1)


@pytest.fixture
def soon(monkeypatch):
    """Nobody is given up, and nothing is waited for."""
    monkeypatch.setattr("runtime.recovery.DELAY_S", 0.0)
    monkeypatch.setattr("runtime.recovery.MAX_DEATHS", 99)
    monkeypatch.setattr("runtime.restarts.BACK_OFF_S", 0.0)
    monkeypatch.setattr("runtime.restarts.MAX_FAILED_STARTS", 99)


@pytest.mark.parametrize("seed", [*range(4), *AT_NIGHT])
@pytest.mark.parametrize("shape", SHAPES)
def test_whoever_dies_nothing_is_lost_or_done_twice(tmp_path, shape, seed, soon):
    check(PlayedFleet(parse(**SHAPES[shape]), tmp_path, seed, kills=15), tmp_path)


@pytest.mark.parametrize("seed", [*range(8), *AT_NIGHT])
@pytest.mark.parametrize("shape", ["apart", "replicas around"])
def test_who_is_late_to_say_what_it_holds_costs_nothing_but_work(tmp_path, shape, seed, soon):
    """Its items begin again, and may prove durable in their first attempt."""
    fleet = PlayedFleet(parse(**SHAPES[shape]), tmp_path, seed, kills=15)
    fleet.lateness = 0.05
    check(fleet, tmp_path)


def check(fleet, folder):
    """Run a job in which workers die; check that it is as if none had, and leaves nothing."""
    durable = []
    tally = Tally(lambda told: durable.extend(one.item for one in told.items))
    kills, fleet.kills = fleet.kills, 0
    with job_of(fleet, tally) as job, ExitStack() as stack:
        stack.callback(lambda: [one.job.close() for one in fleet.actors.values() if one.job])
        job.open()
        fleet.kills = kills
        tally.start(unit="numbers", num_units=NUM_ITEMS, num_items=NUM_ITEMS)
        job.run_items()
        fleet.kills = 0
        for worker in fleet.actors.values():
            assert worker.ledger.num_here() == 0, f"{worker.plan.name} holds what is finished"
        job.finish()
        job.close_job()
    assert sorted(durable) == list(range(NUM_ITEMS)), "each exactly once"
    assert tally.units_durable == NUM_ITEMS
    values = [f"{i + 3:g} {i + 4:g} {i + 5:g} {i + 6:g}" for i in range(NUM_ITEMS)]
    lines = (folder / "out").read_text().splitlines()
    assert [line.rpartition(";")[2] for line in lines] == values
    assert fleet.num_killed >= 3


@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.parametrize("seed", range(12))
def test_whoever_dies_beside_a_join_it_ends_as_it_does(tmp_path, seed, fails):
    """Its end may be told at any moment, also while the living are asked about the dead."""
    fleet = PlayedFleet(parse(), tmp_path, seed, kills=0)
    fleet.join_fails = fails
    tally = Tally(lambda _told: None)
    ends = pytest.raises(StageFailed, match="no room") if fails else nullcontext()
    with job_of(fleet, tally) as job, ExitStack() as stack:
        stack.callback(lambda: [one.job.close() for one in fleet.actors.values() if one.job])
        job.open()
        tally.start(unit="numbers", num_units=NUM_ITEMS, num_items=NUM_ITEMS)
        job.run_items()
        fleet.kill("b/0")
        with ends:
            job.finish()
    assert (tmp_path / "out").exists() != fails
    assert fleet.num_started["write/0"] == 1, "it is well"


class NotesWithout(Notes):
    """The host has no memory for the next `failures` of them."""

    failures = 0

    def __init__(self, worker):
        if NotesWithout.failures:
            NotesWithout.failures -= 1
            raise NoMemory("b/0: no memory for its notes")
        super().__init__(worker)


@pytest.mark.parametrize("failures", [2, 3])
def test_who_cannot_be_told_of_the_job_has_failed_to_start(tmp_path, monkeypatch, failures):
    """For want of memory: it is tried again, but not for ever."""
    monkeypatch.setattr("runtime.restarts.BACK_OFF_S", 0.0)
    monkeypatch.setattr("runtime.recovery.DELAY_S", 0.0)
    monkeypatch.setattr("runtime.job_pools.Notes", NotesWithout)
    fleet = PlayedFleet(parse(), tmp_path, 0, kills=0)
    tally = Tally(lambda _told: None)
    ends = pytest.raises(PlanError, match="no memory for its notes") if failures == 3 else None
    with job_of(fleet, tally) as job, ExitStack() as stack:
        stack.callback(lambda: [one.job.close() for one in fleet.actors.values() if one.job])
        job.open()
        monkeypatch.setattr(NotesWithout, "failures", failures)
        tally.start(unit="numbers", num_units=NUM_ITEMS, num_items=NUM_ITEMS)
        fleet.kill("b/0")
        with ends or nullcontext():
            job.run_items()
    assert fleet.num_started["b/0"] == 4
    assert tally.items_durable == (0 if failures == 3 else NUM_ITEMS)
