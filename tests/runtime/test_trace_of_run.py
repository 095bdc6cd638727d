"""A run's trace: what every worker did and when, as ui.perfetto.dev reads it."""

import json
import os
from collections import Counter, defaultdict
from functools import partial
from itertools import pairwise
from pathlib import Path

import pytest

from runtime.errors import RunIncomplete, RunInterrupted, WorkerDied
from runtime.pipeline import Pipeline
from runtime.run_trace import RunTrace
from runtime.tally import Tally
from tests.striking import never_back

PHASES = {"M", "X", "s", "f", "i"}


def load(path):
    """Return the events of a trace, each checked for what Perfetto's importer asks of it."""
    events = json.loads(path.read_text())["traceEvents"]
    for event in events:
        assert event["ph"] in PHASES
        assert {type(event[key]) for key in ("pid", "tid")} == {int}
        assert isinstance(event["name"], str)
        if event["ph"] != "M":
            assert type(event["ts"]) is int
            assert event["ts"] >= 0
        if event["ph"] == "X":
            assert type(event["dur"]) is int
            assert event["dur"] >= 0
    return events


class Trace:
    """The events of one file, by track."""

    def __init__(self, path):
        self.events = load(path)
        self.names = {
            event["tid"]: event["args"]["name"]
            for event in self.events
            if event["name"] == "thread_name"
        }
        self.slices = defaultdict(list)
        for event in self.events:
            if event["ph"] == "X":
                self.slices[self.names[event["tid"]]].append(event)
        for slices in self.slices.values():
            slices.sort(key=lambda event: (event["ts"], event["ts"] + event["dur"]))

    def runs(self, track):
        return [event for event in self.slices[track] if event["cat"] == "run"]

    def arrows(self):
        """Return (start, end) of each arrow, which has an id of its own."""
        starts = {event["id"]: event for event in self.events if event["ph"] == "s"}
        ends = {event["id"]: event for event in self.events if event["ph"] == "f"}
        assert starts.keys() == ends.keys()
        assert len(starts) == sum(event["ph"] == "s" for event in self.events)
        assert all(end["bp"] == "e" for end in ends.values())
        return [(starts[number], ends[number]) for number in starts]

    def slice_at(self, event):
        """Return the slice that Perfetto binds an arrow to: the last that began on its track."""
        order = {id(event): place for place, event in enumerate(self.events)}
        before = [
            one
            for one in self.slices[self.names[event["tid"]]]
            if (one["ts"], order[id(one)]) < (event["ts"], order[id(event)])
        ]
        return max(before, key=lambda one: (one["ts"], order[id(one)]))


def run(config, source, folder, **options):
    with Pipeline(config) as pipeline:
        report = pipeline.run(
            input=source, output=folder / "out.txt", run_dir=folder / "run", **options
        )
        return report, Trace(folder / "run/trace.json")


def test_every_item_has_a_run_slice_on_the_track_of_every_worker(make_config, numbers, tmp_path):
    report, trace = run(make_config(), numbers(40), tmp_path)
    assert list(trace.names.values()) == ["run", "read/0 cpu", "add/0 cpu", "write/0 cpu"]
    assert set(trace.names) == {os.getpid(), *(worker.pid for worker in report.workers)}
    for stage in ("read", "add", "write"):
        runs = trace.runs(f"{stage}/0 cpu")
        assert sorted(event["args"]["item"] for event in runs) == list(range(40))
        assert {(event["name"], event["args"]["attempt"]) for event in runs} == {(stage, 0)}


def test_slices_of_a_track_follow_each_other(make_config, numbers, tmp_path):
    _report, trace = run(make_config(), numbers(40), tmp_path)
    for slices in trace.slices.values():
        assert len(slices) > 5
        for one, following in pairwise(slices):
            assert one["ts"] + one["dur"] <= following["ts"]


def test_an_arrow_leads_every_item_from_worker_to_worker(make_config, numbers, tmp_path):
    _report, trace = run(make_config(), numbers(40), tmp_path)
    ways = Counter()
    for start, end in trace.arrows():
        sends, takes = trace.slice_at(start), trace.slice_at(end)
        assert sends["args"]["item"] == takes["args"]["item"]
        assert sends["ts"] == start["ts"] < end["ts"] == takes["ts"]
        ways[sends["name"], takes["name"]] += 1
    assert ways == {("read", "add"): 40, ("add", "write"): 40}


def test_stages_of_one_worker_share_a_track_without_arrows(make_config, numbers, tmp_path):
    config = make_config(groups=(("read", "add"),))
    _report, trace = run(config, numbers(10), tmp_path)
    assert Counter(event["name"] for event in trace.runs("read+add/0 cpu")) == {
        "read": 10,
        "add": 10,
    }
    assert len(trace.arrows()) == 10


def test_waiting_is_named_by_what_is_missing(make_config, numbers, tmp_path):
    config = make_config(source={"with": {"delay_s": 0.01}})
    _report, trace = run(config, numbers(20), tmp_path)
    waits = {
        track: {event["name"] for event in slices if event["cat"] == "wait"}
        for track, slices in trace.slices.items()
    }
    assert "wait: read" in waits["add/0 cpu"]
    assert "wait: add" in waits["write/0 cpu"]
    for track in ("read/0 cpu", "add/0 cpu", "write/0 cpu"):
        events = [one["cat"] for one in trace.slices[track] if one["cat"] != "step"]
        assert events[-1] == "run", "nobody waits for an item after the last one"


def test_the_run_has_a_track_and_workers_tell_of_their_steps(make_config, numbers, tmp_path):
    _report, trace = run(make_config(), numbers(4), tmp_path)
    assert [event["name"] for event in trace.slices["run"]] == [
        "start",
        "open",
        "load",
        "prepare",
        "open job",
        "items",
        "finish",
        "close job",
    ]
    steps = [event["name"] for event in trace.slices["write/0 cpu"] if event["cat"] == "step"]
    assert steps == ["Configure", "Specify", "Load", "Prepare", "OpenJob", "Finish", "CloseJob"]


def test_a_second_run_has_a_trace_and_memory_of_its_own(make_config, numbers, tmp_path):
    with Pipeline(make_config()) as pipeline:
        for name in ("a", "b"):
            report = pipeline.run(
                input=numbers(6), output=tmp_path / name, run_dir=tmp_path / f"run {name}"
            )
            for worker in report.workers:
                assert ".trace" not in Path(f"/proc/{worker.pid}/maps").read_text()
    trace = Trace(tmp_path / "run b/trace.json")
    assert len(trace.runs("add/0 cpu")) == 6
    assert "Load" not in {event["name"] for event in trace.slices["add/0 cpu"]}


def test_a_failed_item_is_marked(make_config, numbers, tmp_path):
    config = make_config(add={"use": "RaisesAt", "with": {"poison": 3}})
    with pytest.raises(RunIncomplete):
        run(config, numbers(10), tmp_path)
    trace = Trace(tmp_path / "run/trace.json")
    failed = [
        (event["name"], event["args"]["item"])
        for track in ("read/0 cpu", "add/0 cpu", "write/0 cpu")
        for event in trace.runs(track)
        if event["args"].get("failed")
    ]
    assert failed == [("add", 3)], "the sink has closed its place as it should"


def test_a_killed_worker_leaves_all_it_did_and_what_it_died_in(
    make_config, numbers, tmp_path, monkeypatch
):
    monkeypatch.setattr("runtime.restarts.BACK_OFF_S", 0.05)
    config = make_config(add=never_back(tmp_path, at=17))
    with pytest.raises(WorkerDied):
        run(config, numbers(40), tmp_path)
    trace = Trace(tmp_path / "run/trace.json")
    runs = trace.runs("add/0 cpu")
    assert [event["args"]["item"] for event in runs] == list(range(18))
    assert [event["args"].get("unfinished") for event in runs] == [None] * 17 + [True]
    items = trace.slices["run"][-1]
    assert items["name"] == "items"
    assert runs[-1]["ts"] + runs[-1]["dur"] >= items["ts"] + items["dur"]
    assert not list((tmp_path / "run").glob("*.partial"))


def test_an_interrupted_run_has_a_trace(make_config, numbers, tmp_path, monkeypatch):
    def interrupted(_tally, _message):
        raise KeyboardInterrupt

    monkeypatch.setattr(Tally, "durable", interrupted)
    with pytest.raises(RunInterrupted):
        run(make_config(), numbers(40), tmp_path)
    assert Trace(tmp_path / "run/trace.json").runs("write/0 cpu")


def test_copies_lie_in_the_run_and_arrows_lead_to_and_from_the_run(make_config, numbers, tmp_path):
    _report, trace = run(make_config(add={"use": "Copies"}), numbers(10), tmp_path)
    copies = [event for event in trace.slices["add/0 cpu"] if event["cat"] == "copy"]
    runs = trace.runs("add/0 cpu")
    assert len(copies) == 20
    for number, copy in enumerate(copies):
        around = runs[number // 2]
        assert around["ts"] <= copy["ts"]
        assert copy["ts"] + copy["dur"] <= around["ts"] + around["dur"]
    for start, end in trace.arrows():
        assert {trace.slice_at(event)["cat"] for event in (start, end)} == {"run"}


def test_a_full_trace_says_so_in_itself_and_in_the_report(
    make_config, numbers, tmp_path, monkeypatch
):
    monkeypatch.setattr("runtime.run.RunTrace", partial(RunTrace, max_records=30))
    report, trace = run(make_config(), numbers(60), tmp_path)
    assert report.items.done == 60
    assert [len(trace.slices[f"{name}/0 cpu"]) for name in ("read", "add", "write")] == [30] * 3
    notes = [event for event in trace.events if event["ph"] == "i"]
    assert [trace.names[event["tid"]] for event in notes] == list(trace.names.values())[1:]
    for event in notes:
        assert event["name"] == "tracing stopped: no room for more than 30 slices"
        last = trace.slices[trace.names[event["tid"]]][-1]
        assert event["ts"] >= last["ts"] + last["dur"]
    assert "trace.json: add/0 cpu did more than the 30 slices in it" in report.warnings


def test_a_trace_that_cannot_be_written_is_told_and_the_run_is_none_the_worse(
    make_config, numbers, tmp_path
):
    path = tmp_path / "run/trace.json"
    path.mkdir(parents=True)
    with Pipeline(make_config()) as pipeline:
        report = pipeline.run(
            input=numbers(4), output=tmp_path / "out", run_dir=tmp_path / "run", overwrite=True
        )
    assert report.status == "done"
    assert report.warnings == (f"{path}: cannot be written: Is a directory",)
    assert not list((tmp_path / "run").glob(".*.partial"))


def test_without_tracing_there_is_no_file(make_config, numbers, tmp_path):
    config = make_config(run={"trace": False})
    with Pipeline(config) as pipeline:
        pipeline.run(input=numbers(4), output=tmp_path / "out", run_dir=tmp_path / "run")
    assert not (tmp_path / "run/trace.json").exists()


def test_inline_there_is_no_file(make_config, numbers, tmp_path):
    with Pipeline(make_config(), inline=True) as pipeline:
        pipeline.run(input=numbers(4), output=tmp_path / "out", run_dir=tmp_path / "run")
    assert not (tmp_path / "run/trace.json").exists()
