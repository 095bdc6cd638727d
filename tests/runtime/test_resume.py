"""A run that ended early goes on: nothing durable is done twice, nothing changed goes unsaid."""

import signal
import tempfile
import threading
from pathlib import Path

import pytest

from runtime.config import parse_config
from runtime.errors import (
    ConfigError,
    RunIncomplete,
    RunInterrupted,
    StageFailed,
)
from runtime.pipeline import Pipeline
from runtime.report import load_report
from runtime.stored import load_run_config
from tests.waiting import wait_until

NUM = 25
EXPECTED = "".join(f"{i}|item {i}|{i + 1} {i + 2} {i + 3} {i + 4}\n" for i in range(NUM))


@pytest.mark.parametrize("inline", [False, True])
def test_only_what_was_not_durable_is_done_again(early, inline):
    early.begin(inline=inline)
    before = early.durable()
    assert before == list(range(8))
    stopped = load_report(early.folder / "report.json")
    assert (stopped.status, stopped.items.done, stopped.resumed) == ("failed", 8, None)
    report = early.again(inline=inline)
    assert early.out.read_text() == EXPECTED
    assert early.noted() == list(range(8, NUM))
    assert (report.status, report.items.done, report.units.done) == ("done", NUM, NUM)
    assert report.counts == {"numbers": NUM, "lines": 13}
    assert (report.resumed.items, report.resumed.runs) == (8, 1)
    assert (report.changed, report.warnings) == ((), ())
    assert report == load_report(early.folder / "report.json")


def test_a_run_may_end_early_often(early):
    early.begin()
    early.full.touch()
    for _time in range(2):
        with pytest.raises(StageFailed):
            early.again()
    failed = load_report(early.folder / "report.json")
    assert (failed.status, failed.items.done, failed.units.done) == ("failed", 8, 8)
    assert (failed.resumed.items, failed.resumed.runs) == (8, 2)
    early.full.unlink()
    early.noted()
    assert early.again().resumed.runs == 3
    assert early.noted() == list(range(8, NUM))
    assert early.out.read_text() == EXPECTED


@pytest.mark.parametrize("inline", [False, True])
def test_where_only_the_join_is_missing_only_that_is_done(early, inline):
    early.begin(add="NotesItsStart", sink="FullAtTheEnd", inline=inline)
    report = early.again(inline=inline)
    assert (report.items.done, report.resumed.items) == (NUM, NUM)
    assert early.noted() == [], "nothing is loaded for it, either"
    assert early.out.read_text() == EXPECTED


def test_a_pipeline_that_has_only_joined_loads_for_its_next_job(early, numbers, tmp_path):
    early.begin(add="NotesItsStart", sink="FullAtTheEnd")
    with Pipeline(load_run_config(early.folder)) as pipeline:
        pipeline.resume(early.folder)
        assert early.noted() == []
        pipeline.run(input=numbers(3), output=tmp_path / "next", run_dir=tmp_path / "run 2")
    assert early.noted() == [-2, -1, 0, 1, 2]


def test_forced_to_begin_anew_a_run_whose_items_were_all_durable_loads(early, numbers):
    early.begin(add="NotesItsStart", sink="FullAtTheEnd")
    numbers(NUM).write_text("4")
    report = early.again(force=True)
    assert (report.items.done, early.noted()) == (4, [-2, -1, 0, 1, 2, 3])


@pytest.mark.parametrize("is_report_there", [True, False])
def test_a_run_that_is_done_is_left_as_it_is(early, is_report_there):
    early.begin()
    early.again()
    early.noted()
    was = early.out.stat()
    if not is_report_there:
        (early.folder / "report.json").unlink()
    with Pipeline(load_run_config(early.folder)) as pipeline:
        report = pipeline.resume(early.folder)
        assert not pipeline.has_report, "it is that of before"
    assert (report.status, report.items.done, report.units.done) == ("done", NUM, NUM)
    assert report.counts == {"numbers": NUM, "lines": 13}
    assert (early.out.stat().st_mtime_ns, early.out.stat().st_ino) == (was.st_mtime_ns, was.st_ino)
    assert early.noted() == []
    assert load_report(early.folder / "report.json") == report


def test_what_a_killed_supervisor_left_goes_also_where_nothing_is_left_to_do(early):
    early.begin()
    early.again()
    left = Path(tempfile.mkdtemp(prefix="rp-"))
    (left / "lock").touch()  # and nobody holds it
    with Pipeline(load_run_config(early.folder)) as pipeline:
        pipeline.resume(early.folder)
    assert not left.exists()


def test_an_output_that_is_gone_is_joined_again(early):
    early.begin()
    early.again()
    early.noted()
    early.out.unlink()
    assert early.again().items.done == NUM
    assert early.noted() == []
    assert early.out.read_text() == EXPECTED


def test_an_output_that_somebody_else_has_written_is_kept(early):
    early.begin()
    early.out.write_text("mine")
    with pytest.raises(ConfigError, match="out: exists; say --overwrite"):
        early.again()
    assert early.out.read_text() == "mine"
    early.again(overwrite=True)
    assert early.out.read_text() == EXPECTED


@pytest.mark.parametrize("inline", [False, True])
def test_items_that_failed_before_stay_failed_and_are_told_again(early, inline):
    early.begin(add="RaisesAtOne", inline=inline)
    with pytest.raises(RunIncomplete, match=r"1 of 25 items failed; stage add failed .* no good"):
        early.again(inline=inline)
    report = load_report(early.folder / "report.json")
    assert (report.status, report.items.done, report.items.failed) == ("failed", 24, 1)
    assert (report.units.done, report.units.failed) == (24, 1)
    assert [failure.item for failure in report.failures] == [1]
    (early.folder / "report.json").unlink()
    with pytest.raises(RunIncomplete, match=r"1 of 25 items failed; .*nothing is left to do"):
        early.again(inline=inline)
    told = load_report(early.folder / "report.json")
    assert (told.items, told.units) == (report.items, report.units)


def test_a_file_that_is_not_as_it_was_is_made_again_with_a_warning(early):
    early.begin()
    (early.folder / "segments/000001.txt").write_text("flipped")
    report = early.again()
    assert early.noted() == [2, 3, *range(8, NUM)]
    assert report.resumed.items == 6
    (warning,) = report.warnings
    assert "items [2, 3] have to be made again: segments/000001.txt has 7 bytes, and had" in warning
    assert early.out.read_text() == EXPECTED


# --- draining ---


@pytest.mark.parametrize("inline", [False, True])
def test_a_drained_run_ends_with_whole_segments_and_goes_on(numbers, tmp_path, inline):
    log = tmp_path / "log"
    config = parse_config(
        {
            "pipeline": "fake",
            "stages": {
                "read": {"use": "tests.fakes:Numbers"},
                "add": {
                    "use": "tests.resume_fakes:Notes",
                    "with": {"log": str(log), "delay_s": 0.02},
                },
                "write": {"use": "tests.fakes:Lines", "with": {"per_segment": 5}},
            },
        }
    )
    folder = tmp_path / "run"
    with Pipeline(config, inline=inline) as pipeline:
        assert not pipeline.drain(), "nothing is under way"
        asked = []

        def drain(live):
            wait_until(lambda: live.tally.units_done > 0)
            asked.append(pipeline.drain())

        def drain_soon(live):
            threads.append(threading.Thread(target=drain, args=[live]))
            threads[-1].start()

        threads = []
        with pytest.raises(RunInterrupted) as caught:
            pipeline.run(
                input=numbers(200), output=tmp_path / "out", run_dir=folder, on_start=drain_soon
            )
        threads[0].join()
    assert asked == [True]
    assert caught.value.signum == signal.SIGINT
    report = load_report(folder / "report.json")
    done = report.items.done
    assert report.status == "interrupted"
    assert 0 < done < 200
    assert done % 5 == 0
    assert sorted(map(int, log.read_text().split())) == list(range(done)), "all of it is durable"
    log.unlink()
    with Pipeline(config, inline=inline) as pipeline:
        report = pipeline.resume(folder)
    assert sorted(map(int, log.read_text().split())) == list(range(done, 200))
    assert report.items.done == 200
    assert len((tmp_path / "out").read_text().splitlines()) == 200
