"""Memory and disk that run out: one line that says so, what was durable stays, and it goes on."""

import pytest

from runtime import row_file
from runtime.errors import JournalError, RunpipeError, StageFailed
from runtime.pipeline import Pipeline
from runtime.report import load_report

LINES = [f"{i}|item {i}|{i + 1} {i + 2} {i + 3} {i + 4}\n" for i in range(200)]


def resumed(make_config, tmp_path, **options):
    with Pipeline(make_config(**options), inline=True) as pipeline:
        return pipeline.resume(tmp_path / "run")


def failed_run(make_config, source, tmp_path, error, *, match, inline=True, **options):
    with (
        Pipeline(make_config(**options), inline=inline) as pipeline,
        pytest.raises(error, match=match),
    ):
        pipeline.run(input=source, output=tmp_path / "out", run_dir=tmp_path / "run")
    assert not (tmp_path / "out").exists()
    return load_report(tmp_path / "run/report.json")


@pytest.mark.parametrize("inline", [False, True])
def test_a_journal_without_room_ends_the_run_and_what_was_in_it_stays(
    make_config, numbers, tmp_path, monkeypatch, inline
):
    connect = row_file._connect

    def connect_to_small(path):
        connection = connect(path)
        connection.execute("PRAGMA max_page_count = 6")
        return connection

    with monkeypatch.context() as small:
        small.setattr(row_file, "_connect", connect_to_small)
        report = failed_run(
            make_config,
            numbers(200),
            tmp_path,
            JournalError,
            match="journal.sqlite: database or disk is full",
            inline=inline,
        )
    assert report.status == "failed"
    assert 0 < report.items.done < 200
    whole = resumed(make_config, tmp_path)
    assert (whole.items.done, whole.resumed.items) == (200, report.items.done)
    assert (tmp_path / "out").read_text() == "".join(LINES)


def test_a_report_without_room_is_said_and_the_run_is_known_as_done(
    make_config, numbers, tmp_path, monkeypatch
):
    def full(_path, _report):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as small:
        small.setattr("runtime.run.write_report", full)
        with (
            Pipeline(make_config(), inline=True) as pipeline,
            pytest.raises(RunpipeError, match=r"report.json: cannot be written: No space left"),
        ):
            pipeline.run(input=numbers(5), output=tmp_path / "out", run_dir=tmp_path / "run")
    assert (tmp_path / "out").read_text() == "".join(LINES[:5])
    assert resumed(make_config, tmp_path).status == "done"
    assert load_report(tmp_path / "run/report.json").items.done == 5


@pytest.mark.parametrize("name", ["config.yaml", "job.json", "workers.json"])
def test_a_file_that_cannot_be_written_is_named(make_config, numbers, tmp_path, name):
    (tmp_path / "run" / name).mkdir(parents=True)  # no file can take its name
    report = failed_run(
        make_config, numbers(5), tmp_path, RunpipeError, match=f"run/{name}: cannot be written: Is"
    )
    assert (report.status, report.items.done) == ("failed", 0)


class NoMemory:
    """Stands for what asks the supervisor for more than there is."""

    def __init__(self, *_given, **_named):
        raise MemoryError


def test_a_supervisor_without_memory_says_so_in_one_line(
    make_config, numbers, tmp_path, monkeypatch
):
    with monkeypatch.context() as small:
        small.setattr("runtime.run.GpuUse", NoMemory)
        failed_run(make_config, numbers(5), tmp_path, RunpipeError, match="^out of memory$")
    assert resumed(make_config, tmp_path).items.done == 5


@pytest.mark.parametrize("inline", [False, True])
def test_a_stage_without_memory_to_load_in_ends_the_run_which_goes_on_later(
    make_config, numbers, tmp_path, inline
):
    full = tmp_path / "full"
    full.touch()
    add = {"use": "tests.resume_fakes:LoadsNothing", "with": {"full": str(full)}}
    report = failed_run(
        make_config,
        numbers(5),
        tmp_path,
        StageFailed,
        match="stage add failed in worker add/0: MemoryError: 8 EiB",
        inline=inline,
        add=add,
    )
    assert report.status == "failed"
    full.unlink()
    assert resumed(make_config, tmp_path, add=add).items.done == 5
    assert (tmp_path / "out").read_text() == "".join(LINES[:5])
