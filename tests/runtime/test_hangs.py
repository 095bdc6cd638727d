"""A worker that is busy with one item for ever, and what is said of it."""

import os

from runtime.pipeline import Pipeline
from runtime.report import load_report
from runtime.stacks import dump_stacks


def test_a_worker_that_never_ends_an_item_is_replaced_and_its_stacks_are_kept(
    make_config, numbers, tmp_path
):
    add = {"use": "tests.striking:BusyOnce", "with": {"marks": str(tmp_path)}}
    config = make_config(add=add, run={"item_limit_s": 1.0, "stop_grace_s": 0.2})
    with Pipeline(config) as pipeline:
        pipeline.run(input=numbers(20), output=tmp_path / "out", run_dir=tmp_path / "run")
    report = load_report(tmp_path / "run/report.json")
    assert (report.status, report.items.done) == ("done", 20)
    (hang,) = report.hangs
    assert (hang.worker, hang.what, hang.item) == ("add/0", "no progress with item 1", 1)
    assert 1.0 < hang.waited_s < 5.0
    assert set(hang.stacks) == {"read/0", "add/0", "write/0"}
    assert "run (striking.py" in hang.stacks["add/0"]
    assert [worker.restarts for worker in report.workers] == [0, 1, 0]
    assert len((tmp_path / "out").read_text().splitlines()) == 20


def test_stacks_that_cannot_be_had_say_why():
    stacks = dump_stacks({"gone": 2**22 + 1, "here": os.getpid()})
    assert "test_stacks_that_cannot_be_had_say_why" in stacks["here"]
    assert stacks["gone"]


def test_without_py_spy_that_is_what_is_said(monkeypatch):
    monkeypatch.setattr("runtime.stacks._find", lambda: None)
    assert dump_stacks({"add/0": os.getpid()}) == {"add/0": "py-spy is not installed"}
