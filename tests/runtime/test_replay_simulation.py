"""The real supervisor and the real items of workers, which die at random, without processes."""

from contextlib import ExitStack

import pytest

from runtime.config import parse_config
from runtime.job_run import JobRun
from runtime.run_trace import RunTrace
from runtime.setup import OpenedJob
from runtime.tally import Tally
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


@pytest.mark.parametrize("seed", [*range(4), *AT_NIGHT])
@pytest.mark.parametrize("shape", SHAPES)
def test_whoever_dies_nothing_is_lost_or_done_twice(tmp_path, shape, seed, monkeypatch):
    monkeypatch.setattr("runtime.recovery.DELAY_S", 0.0)
    monkeypatch.setattr("runtime.recovery.MAX_DEATHS", 99)
    monkeypatch.setattr("runtime.restarts.BACK_OFF_S", 0.0)
    monkeypatch.setattr("runtime.restarts.MAX_FAILED_STARTS", 99)
    fleet = PlayedFleet(parse(**SHAPES[shape]), tmp_path, seed, kills=15)
    durable = []
    tally = Tally(lambda told: durable.extend(one.item for one in told.items))
    opened = OpenedJob(
        job=fleet.job,
        facts=fleet.facts,
        item_size=1,
        unit="numbers",
        num_units=NUM_ITEMS,
        broken="",
        plan=fleet.plan,
    )
    trace = RunTrace(enabled=False)
    kills, fleet.kills = fleet.kills, 0
    with JobRun(fleet.config, fleet, opened, tally, trace, number=1) as job, ExitStack() as stack:
        stack.callback(lambda: [one.job.close() for one in fleet.actors.values() if one.job])
        job.open()
        fleet.kills = kills
        tally.start(unit="numbers", num_units=NUM_ITEMS, num_items=NUM_ITEMS)
        job.run_items()
        fleet.kills = 0
        job.finish()
        for worker in fleet.actors.values():
            assert worker.ledger.num_here() == 0, f"{worker.plan.name} holds what is finished"
    assert sorted(durable) == list(range(NUM_ITEMS)), "each exactly once"
    assert tally.units_durable == NUM_ITEMS
    values = [f"{i + 3:g} {i + 4:g} {i + 5:g} {i + 6:g}" for i in range(NUM_ITEMS)]
    lines = (tmp_path / "out").read_text().splitlines()
    assert [line.rpartition(";")[2] for line in lines] == values
    assert fleet.num_killed >= 3
