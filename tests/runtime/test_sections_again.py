"""Runs in sections that end early, and go on: in their cut, with their input, to their end."""

import signal
import threading
from pathlib import Path

import pytest

from runtime.chain import Chain
from runtime.config import parse_config
from runtime.errors import ConfigError, RunIncomplete, RunInterrupted
from runtime.report import load_report
from runtime.stored import load_job
from tests.runtime.test_residency import other_cut
from tests.runtime.test_sections import config, expected, run
from tests.waiting import wait_until


def drained(chain, tmp_path, *, when, **options):
    """Run until the file `when` is there, then drain."""

    def drain():
        wait_until(lambda: (tmp_path / when).exists())
        assert chain.drain()

    thread = threading.Thread(target=drain)
    thread.start()
    with pytest.raises(RunInterrupted):
        run(chain, tmp_path, **options)
    thread.join()


def stopped(chain, tmp_path, *, when):
    """Run until the file `when` is there, then interrupt."""
    main = threading.main_thread().ident

    def interrupt():
        wait_until(lambda: (tmp_path / when).exists())
        signal.pthread_kill(main, signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    with pytest.raises(RunInterrupted):
        run(chain, tmp_path)
    thread.join()


@pytest.fixture
def interrupted(tmp_path):
    """Begin a run with a slow first section, and drain it."""
    slow = config(tmp_path, read={"with": {"delay_s": 0.3}})
    with Chain(slow) as chain:
        drained(chain, tmp_path, when="run/kept/kept/001.json")
    return slow


def test_another_input_is_refused_and_spoils_nothing(interrupted, tmp_path):
    before = load_job(tmp_path / "run")
    (tmp_path / "other.txt").write_text("8")
    with Chain(interrupted) as chain:
        with pytest.raises(ConfigError, match=r"not resumed: it was a run of .*in\.txt"):
            chain.resume(tmp_path / "run", input=tmp_path / "other.txt")
        assert load_job(tmp_path / "run") == before
        chain.resume(tmp_path / "run")
    assert (tmp_path / "out/sums.txt").read_text() == expected()


def test_an_output_folder_that_cannot_be_is_said(interrupted, tmp_path):
    with Chain(interrupted) as chain, pytest.raises(ConfigError, match="there is no folder"):
        chain.resume(tmp_path / "run", output=tmp_path / "gone/out", force=True)


def test_a_run_killed_before_its_report_gets_one(interrupted, tmp_path):
    with Chain(interrupted) as chain:
        chain.resume(tmp_path / "run")
    for stale in (None, '{"status": "interrupted"}'):
        path = tmp_path / "run/report.json"
        path.unlink() if stale is None else path.write_text(stale)
        with Chain(interrupted) as chain:
            report = chain.resume(tmp_path / "run")
        assert (report.status, report.items.done) == ("done", 11)
        assert load_report(path) == report


def test_what_failed_in_a_section_that_was_done_is_told_again(tmp_path):
    changed = config(
        tmp_path,
        add={"use": "tests.fakes:RaisesAt", "with": {"poison": 4}},
        sum={"with": {"delay_s": 2.0}},
    )
    with Chain(changed) as chain:
        stopped(chain, tmp_path, when="out/kept.json")
    with Chain(changed) as chain, pytest.raises(RunIncomplete):
        chain.resume(tmp_path / "run")
    report = load_report(tmp_path / "run/report.json")
    assert list(report.sections) == ["kept", "sums"]
    assert [(one.section, one.item) for one in report.failures] == [("kept", 4)]
    assert (tmp_path / "out/sums.txt").read_text() == expected(failed=[4])


def test_draining_begins_no_section_that_has_not_begun(tmp_path):
    slow = config(
        tmp_path, read={"with": {"delay_s": 0.3}}, run={"residency": "phased", "window": "auto"}
    )
    with Chain(slow) as chain:
        drained(chain, tmp_path, when="run/kept/kept/001.json")
        assert not (tmp_path / "run/sums/segments").exists()
    with Chain(slow) as chain:
        chain.resume(tmp_path / "run")
    assert (tmp_path / "out/sums.txt").read_text() == expected()


def test_a_sink_with_long_segments_does_not_wait_for_what_will_not_come(tmp_path):
    slow = config(
        tmp_path,
        read={"use": "tests.fakes:ReadsAllBut", "with": {"poison": 99}},
        keep={"use": "tests.section_fakes:KeepsUntil"},
        write={"with": {"per_segment": 3}},
    )
    with Chain(slow) as chain, pytest.raises(Exception, match="no more") as raised:
        run(chain, tmp_path)
    assert "no more" in str(raised.value)


def test_inline_a_section_that_ends_early_is_the_last(tmp_path):
    broken = config(tmp_path, keep={"use": "tests.section_fakes:KeepsUntil"})
    with Chain(broken, inline=True) as chain, pytest.raises(Exception, match="no more"):
        run(chain, tmp_path)
    assert not (tmp_path / "out/sums.txt").exists()


def test_a_run_goes_on_in_the_cut_it_began_in(tmp_path, monkeypatch):
    begun = other_cut(tmp_path)
    slow = parse_config(
        {
            **begun.model_dump(by_alias=True),
            "stages": {
                name: {**stage, "with": {**stage["with"], "delay_s": 0.3}}
                if name == "read"
                else stage
                for name, stage in begun.model_dump(by_alias=True)["stages"].items()
            },
        }
    )
    with Chain(slow) as chain:
        stopped(chain, tmp_path, when="run/sums/segments/000001.txt")
    assert {path.name for path in Path(tmp_path / "run").iterdir() if path.is_dir()} == {
        "logs",
        "sums",
    }
    monkeypatch.setattr("runtime.residency._lack", lambda needs: "no room")
    with Chain(slow) as chain:
        report = chain.resume(tmp_path / "run")
    assert list(report.sections) == ["sums"]
    assert report.status == "done"


def test_a_section_that_does_not_fit_by_itself_is_cut(tmp_path, monkeypatch):
    from runtime import plan

    whole = other_cut(tmp_path)
    real = plan.check_memory
    calls = []

    def once(*arguments, **keywords):
        calls.append(arguments)
        if len(calls) == 1:
            raise plan.PlanError("not even by itself")
        return real(*arguments, **keywords)

    monkeypatch.setattr("runtime.plan.check_memory", once)
    with Chain(whole) as chain:
        report = run(chain, tmp_path)
    assert list(report.sections) == ["firsts", "sums"]
