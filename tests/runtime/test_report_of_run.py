"""What the report of a run says, however the run ended."""

import pytest

from ipc.errors import ProtocolError
from runtime.errors import RunIncomplete, RunpipeError, StageFailed
from runtime.pipeline import Pipeline
from runtime.report import load_report
from tests.runtime.test_faults import config, run


@pytest.mark.parametrize("inline", [False, True])
def test_a_sink_that_fails_on_a_failed_item_is_told_beside_it(numbers, tmp_path, inline):
    both = config(
        add={"use": "tests.fakes:RaisesAt", "with": {"poison": 0}},
        write={"use": "tests.runtime.faulty:FindsTheDiskFull"},
    )
    with Pipeline(both, inline=inline) as pipeline, pytest.raises(StageFailed, match="No space"):
        run(pipeline, numbers(5), tmp_path)
    report = load_report(tmp_path / "run/report.json")
    assert [failure.stage for failure in report.failures] == ["add", "write"]
    assert report.items.failed == 1, "it is one item"


def test_a_report_has_no_counts_of_an_earlier_run(make_config, numbers, tmp_path):
    with Pipeline(make_config()) as pipeline:
        pipeline.run(input=numbers(9), output=tmp_path / "a", run_dir=tmp_path / "run a")
        (tmp_path / "run b").mkdir()
        (tmp_path / "run b/config.yaml").mkdir()  # it fails before an item runs
        with pytest.raises(RunpipeError):
            pipeline.run(input=numbers(9), output=tmp_path / "b", run_dir=tmp_path / "run b")
    report = load_report(tmp_path / "run b/report.json")
    assert {worker.items for worker in report.workers} == {0}
    assert report.links == ()


@pytest.mark.parametrize("poison", [None, 3])
def test_ctrl_c_while_the_report_is_written_leaves_one_of_any_run(
    make_config, numbers, tmp_path, monkeypatch, poison
):
    from runtime.report import write_report

    calls = []

    def interrupted_first(path, report):
        calls.append(report.status)
        if len(calls) == 1:
            raise KeyboardInterrupt
        write_report(path, report)

    monkeypatch.setattr("runtime.run.write_report", interrupted_first)
    add = {"use": "Add"} if poison is None else {"use": "RaisesAt", "with": {"poison": poison}}
    with Pipeline(make_config(add=add)) as pipeline, pytest.raises(RunpipeError):
        run(pipeline, numbers(5), tmp_path)
    wanted = "interrupted" if poison is None else "failed"
    assert load_report(tmp_path / "run/report.json").status == wanted


def test_a_trace_without_descriptors_does_not_spoil_a_run(
    make_config, numbers, tmp_path, monkeypatch
):
    def fail(*_arguments, **_keywords):
        raise ProtocolError("cannot open the memory: Too many open files")

    monkeypatch.setattr("runtime.run_trace.RunTrace.write", fail)
    with Pipeline(make_config()) as pipeline:
        report = run(pipeline, numbers(5), tmp_path)
    assert report.status == "done"
    assert "Too many open files" in report.warnings[0]


def test_many_failed_items_are_told_one_by_one_only_at_first(numbers, tmp_path, capfd):
    fails = config(add={"use": "tests.fakes:RaisesAlways"})
    with Pipeline(fails) as pipeline, pytest.raises(RunIncomplete, match="none of 30 items"):
        run(pipeline, numbers(30), tmp_path)
    said = capfd.readouterr().err
    assert said.count("it is left out") == 10
    assert said.count("more items fail") == 1
