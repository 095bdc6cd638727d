"""What a worker writes down of itself, and what becomes of it in the trace."""

import io
import json

import numpy as np
import pytest

from ipc.host import HostPool, MappedPool
from runtime.trace import (
    COPY_IN,
    COPY_OUT,
    FAILED,
    NAMES_BYTES,
    PART,
    RECORD,
    RUN,
    STEP,
    WAIT,
    Recorder,
    read_trace,
    trace_bytes,
)
from runtime.trace_json import Scene, Track, write_events

MAX_RECORDS = 400


@pytest.fixture
def memory():
    """Memory of a worker's trace, as a supervisor makes it."""
    pool = HostPool("w.0@host#1.trace", owner="w", num_slots=1, slot_bytes=trace_bytes(MAX_RECORDS))
    yield pool
    pool.close()


@pytest.fixture
def recorder(memory):
    made = Recorder()
    made.open(memory.address)
    yield made
    made.close()


def recorded(memory):
    """Return (kind, name, item) of each record."""
    with MappedPool(memory.address, writable=False) as mapped:
        names, records = read_trace(mapped.array())
    return [(int(r["kind"]), names[r["name"]], int(r["item"])) for r in records]


def test_a_torn_record_is_none(recorder, memory):
    recorder.run("add", 0, 0, 1.0)
    recorder.ran(2.0, failed=False)
    recorder.run("add", 1, 0, 3.0)
    with MappedPool(memory.address, writable=True) as mapped:
        mapped.array()[NAMES_BYTES + 2 * RECORD.itemsize - 1] = 0
    assert recorded(memory) == [(RUN, "add", 0)]


def test_what_came_before_the_job_is_traced_too(memory):
    recorder = Recorder()
    with recorder.step("Load"):
        pass
    recorder.open(memory.address)
    recorder.wait("read", -1, 1.0)
    recorder.run("add", 0, 0, 2.0)
    recorder.ran(3.0, failed=True)
    recorder.wait("item", 4, 3.0)
    with recorder.step("CloseJob"):
        pass
    expected = [(STEP, "Load", -1), (WAIT, "read", -1), (FAILED, "add", 0), (STEP, "CloseJob", -1)]
    assert recorded(memory) == expected
    recorder.close()
    assert [len(part) for part in recorder.read()] == [1, 0]


def test_a_wait_for_something_else_is_another_slice(recorder, memory):
    recorder.wait("read", -1, 1.0)
    recorder.wait("read", -1, 1.0)
    recorder.wait("item", 4, 1.0)
    recorder.wait("item", 5, 1.0)
    assert recorded(memory) == [(WAIT, "read", -1), (WAIT, "item", 4), (WAIT, "item", 5)]


def test_names_past_the_limit_are_one_name(recorder, memory):
    for number in range(300):
        recorder.run(f"stage {number}", number, 0, 1.0)
    names = [name for _kind, name, _item in recorded(memory)]
    assert names == [f"stage {number}" for number in range(255)] + ["other"] * 45


def test_past_its_last_record_a_recorder_writes_nothing(recorder, memory):
    for item in range(MAX_RECORDS + 5):
        recorder.wait("read", -1, 1.0)
        recorder.run("add", item, 0, 1.0)
        with recorder.part("copy"):
            pass
        recorder.ran(2.0, failed=True)
    assert len(recorded(memory)) == MAX_RECORDS


def test_the_same_item_of_another_attempt_has_a_way_of_its_own():
    tracks = []
    for stage, began in (("read", 1.0), ("write", 2.0)):
        recorder = Recorder()
        for attempt in (0, 1):
            recorder.run(stage, 7, attempt, began + 2 * attempt)
            recorder.ran(began + 2 * attempt + 0.5, failed=False)
        tracks.append(Track(stage, len(tracks), recorder.read(), is_full=False))
    file = io.BytesIO()
    write_events(file, Scene("t", pid=9, began=0.0, ended=9.0), tracks)
    events = json.loads(file.getvalue())["traceEvents"]
    arrows = [(event["ph"], event["id"], event["ts"]) for event in events if "id" in event]
    assert arrows == [("s", 1, 1000000), ("s", 2, 3000000), ("f", 1, 2000000), ("f", 2, 4000000)]


def test_an_arrow_is_bound_to_a_run_and_not_to_its_part_that_begins_at_once():
    """Perfetto binds it to the last slice that began on the track, in the order of the file."""
    names = ("other", "read", "write", "copy")
    wait, run, part = (
        (1.0, 2.0, -1, 0, 1, WAIT),
        (2.0, 3.0, 0, 0, 1, RUN),
        (2.0, 2.5, -1, 0, 3, PART),
    )
    first = Track("a", 1, (names, np.array([wait, run, part], RECORD)), is_full=False)
    takes = np.array([(3.0, 4.0, 0, 0, 2, RUN), (3.0, 3.5, -1, 0, 3, PART)], RECORD)
    file = io.BytesIO()
    write_events(
        file,
        Scene("t", pid=9, began=0.0, ended=9.0),
        [first, Track("b", 2, (names, takes), is_full=False)],
    )
    events = json.loads(file.getvalue())["traceEvents"]
    order = [(event["ph"], event["name"], event["ts"]) for event in events if event["ph"] != "M"]
    assert order == [
        ("X", "wait: read", 1000000),
        ("X", "read", 2000000),
        ("s", "item", 2000000),
        ("X", "copy", 2000000),
        ("X", "write", 3000000),
        ("f", "item", 3000000),
        ("X", "copy", 3000000),
    ]


def test_copies_beside_runs_have_tracks_of_their_own():
    """They overlap with runs and with each other, which slices of one track must not."""
    recorder = Recorder()
    recorder.run("add", 0, 0, 1.0)
    recorder.ran(3.0, failed=False)
    recorder.copied(COPY_IN, 1, 1.5, 2.5)
    recorder.copied(COPY_OUT, 0, 2.0, 3.5)
    recorder.run("add", 1, 0, 3.0)
    recorder.ran(4.0, failed=False)
    plain = Recorder()
    plain.run("write", 0, 0, 4.0)
    plain.ran(5.0, failed=False)
    file = io.BytesIO()
    tracks = [
        Track("a", 1, recorder.read(), is_full=False),
        Track("b", 2, plain.read(), is_full=False),
    ]
    write_events(file, Scene("t", pid=9, began=0.0, ended=9.0), tracks)
    events = json.loads(file.getvalue())["traceEvents"]
    tids = {e["args"]["name"]: e["tid"] for e in events if e["name"] == "thread_name"}
    assert list(tids) == ["a", "a, copies in", "a, copies out", "b"]
    shown = {
        (e["tid"], e["name"], e["args"]["item"], e["ts"], e["dur"])
        for e in events
        if e["ph"] == "X"
    }
    assert shown == {
        (tids["a"], "add", 0, 1000000, 2000000),
        (tids["a"], "add", 1, 3000000, 1000000),
        (tids["a, copies in"], "copy", 1, 1500000, 1000000),
        (tids["a, copies out"], "copy", 0, 2000000, 1500000),
        (tids["b"], "write", 0, 4000000, 1000000),
    }
    arrows = [(e["ph"], e["tid"]) for e in events if "id" in e]
    assert arrows == [("s", tids["a"]), ("f", tids["b"])]
