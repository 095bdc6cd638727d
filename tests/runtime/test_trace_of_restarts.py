"""What a restarted worker's incarnations trace, and that no memory of theirs piles up."""

import os
import time
from contextlib import closing

import pytest

from runtime.run_trace import RunTrace
from runtime.trace import Recorder
from tests.runtime.test_trace_of_run import Trace

WORKERS = [("add/0", "cpu", os.getpid())]


@pytest.fixture
def trace():
    with RunTrace(enabled=True, max_records=30) as trace:
        yield trace


def live(trace, incarnation, *, num_runs):
    """Trace as an incarnation of a worker does that dies in its last run."""
    address = trace.open("add/0", f"add/0.{incarnation}.trace")
    with closing(Recorder()) as recorder:
        recorder.open(*address)
        for item in range(num_runs):
            recorder.run("add", item, incarnation, time.monotonic())
            if item < num_runs - 1:
                recorder.ran(time.monotonic(), failed=False)


def test_every_incarnation_has_a_track_of_what_it_did(trace, tmp_path):
    for incarnation, num_runs in enumerate((3, 0, 5)):
        live(trace, incarnation, num_runs=num_runs)
    assert trace.write(tmp_path / "trace.json", "x", WORKERS) == []
    found = Trace(tmp_path / "trace.json")
    names = ["add/0 cpu", "add/0 cpu, restart 1", "add/0 cpu, restart 2"]
    assert [len(found.runs(name)) for name in names] == [3, 0, 5]


def test_restarts_take_no_descriptors_and_no_more_slices_than_one_worker_has(trace, tmp_path):
    live(trace, 0, num_runs=4)
    before = len(os.listdir("/proc/self/fd"))
    for incarnation in range(1, 20):
        live(trace, incarnation, num_runs=4)
    assert len(os.listdir("/proc/self/fd")) <= before
    assert trace.open("add/0", "add/0.20.trace") == ()
    warnings = trace.write(tmp_path / "trace.json", "x", WORKERS)
    assert warnings == ["trace.json: add/0 cpu, restart 7 did more than the 30 slices in it"]
    found = Trace(tmp_path / "trace.json")
    assert sum(len(slices) for slices in found.slices.values()) == 30
