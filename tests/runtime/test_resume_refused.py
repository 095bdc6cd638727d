"""A run that is not the one that ended early is refused by name; damage is never believed."""

import os
import shutil
import signal
import subprocess
import sys
import threading

import pytest

from runtime import run_dir
from runtime.errors import (
    ConfigError,
    JournalError,
)
from runtime.pipeline import Pipeline

NUM = 25
EXPECTED = "".join(f"{i}|item {i}|{i + 1} {i + 2} {i + 3} {i + 4}\n" for i in range(NUM))


# --- what has changed ---


def test_another_configuration_is_refused_by_name_and_nothing_touched(early):
    early.begin()
    report = (early.folder / "report.json").read_bytes()
    with pytest.raises(ConfigError, match=r"config.run.seed: 0 -> 7; --force goes on"):
        early.again(given=early.config(seed=7))
    assert (early.folder / "report.json").read_bytes() == report
    assert early.durable() == list(range(8))
    assert early.noted() == []
    forced = early.again(given=early.config(seed=7), force=True)
    assert "changed: config.run.seed: 0 -> 7" in forced.warnings
    assert "config.run.seed: 0 -> 7" in forced.changed
    assert early.noted() == list(range(8, NUM)), "what is durable stays"


def test_an_edited_configuration_is_refused_too(early):
    early.begin()
    path = early.folder / "config.yaml"
    path.write_text(path.read_text().replace("seed: 0", "seed: 3"))
    with pytest.raises(ConfigError, match=r"config.run.seed: 0 -> 3"):
        early.again()


@pytest.mark.parametrize(
    ("option", "complaint"), [("input", "input: .*/25.txt -> "), ("output", "output: .*/out -> ")]
)
def test_another_input_or_output_is_refused_by_name(early, tmp_path, option, complaint):
    early.begin()
    (tmp_path / "other").write_text("25")
    with pytest.raises(ConfigError, match=complaint):
        early.again(**{option: tmp_path / "other"})


def test_an_input_that_was_written_to_is_refused(early, tmp_path):
    early.begin()
    (tmp_path / "25.txt").write_text("26")
    with pytest.raises(ConfigError, match=r"25.txt: has changed; --force"):
        early.again()


def test_other_code_is_refused_and_another_torch_is_told(early, monkeypatch):
    early.begin()
    monkeypatch.setattr("runtime.fingerprint.versions", lambda: {"torch": "9.9"})
    monkeypatch.setattr("runtime.fingerprint.code_sha256", lambda _project: "other")
    with pytest.raises(ConfigError, match="the code of runpipe has changed; --force"):
        early.again()
    report = early.again(force=True)
    assert any(w.startswith("bytes may differ: versions.torch: ") for w in report.warnings)
    assert early.out.read_text() == EXPECTED


def test_other_threads_are_told(early, monkeypatch):
    early.begin()
    monkeypatch.setattr("runtime.plan._threads", lambda _config, _host: 77)
    report = early.again()
    told = [w for w in report.warnings if w.startswith("bytes may differ: threads.add/0: ")]
    assert len(told) == 1
    assert any(change.startswith("threads.add/0: ") for change in report.changed)


@pytest.fixture
def sized(early, tmp_path):
    """A run whose items were of 3 numbers, as no more fitted."""
    fits = tmp_path / "fits"
    fits.write_text("3")
    early.fits = fits
    early.begin(
        more={
            "read": {"use": "tests.fakes:Sized", "with": {"size": 8}},
            "add": {"use": "tests.resume_fakes:FitsAsSaid", "with": {"file": str(fits)}},
            "write": {
                "use": "tests.resume_fakes:FullDisk",
                "with": {"full": str(early.full), "at": 5},
            },
        }
    )
    assert early.durable() == [0, 1, 2, 3]
    return early


def test_items_keep_the_size_that_they_had(sized):
    sized.fits.write_text("8")
    report = sized.again()
    assert (report.items.done, report.resumed.items) == (9, 4)
    assert sized.out.read_text().startswith("0|item 0|1 2 3\n")
    assert report.warnings == ()


def test_items_that_no_longer_fit_are_refused_and_begun_anew_only_by_force(sized):
    sized.fits.write_text("2")
    with pytest.raises(ConfigError, match=r"work.item_size: 3 -> 2; work.num_items: 9 -> 13"):
        sized.again()
    assert sized.durable() == [0, 1, 2, 3]
    report = sized.again(force=True)
    assert (report.items.done, report.resumed.items, report.units.done) == (13, 0, 13)
    assert "nothing that was durable fits: everything is done again" in report.warnings
    assert sized.out.read_text().startswith("0|item 0|1 2\n")
    assert len(sized.out.read_text().splitlines()) == 13
    assert sized.durable() == list(range(13))


# --- what the directory has ---


def test_a_run_that_ended_before_its_journal_is_run_from_the_start(early):
    early.begin()
    for path in early.folder.iterdir():
        if path.name not in ("job.json", "config.yaml"):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    report = early.again()
    assert (report.items.done, report.resumed.items) == (NUM, 0)
    assert early.noted() == list(range(NUM))
    assert early.out.read_text() == EXPECTED


def test_without_its_journal_another_configuration_is_refused_too(early):
    early.begin()
    early.journal.unlink()
    with pytest.raises(ConfigError, match=r"config.run.seed: 0 -> 7; --force"):
        early.again(given=early.config(seed=7))


def test_an_empty_journal_is_recovered_from_by_doing_all_again(early):
    early.begin()
    early.journal.write_bytes(b"")
    report = early.again()
    assert early.noted() == list(range(NUM))
    assert early.out.read_text() == EXPECTED
    assert any("has no fingerprint" in warning for warning in report.warnings)
    assert early.durable() == list(range(NUM))


def flip(path):
    data = bytearray(path.read_bytes())
    at = data.index(b"segments/000001.txt")
    data[at] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize(
    "spoil", [flip, lambda path: path.write_bytes(b"no journal"), lambda p: os.truncate(p, 5000)]
)
def test_a_damaged_journal_is_refused_and_set_aside_only_by_force(early, spoil):
    early.begin()
    spoil(early.journal)
    spoilt = early.journal.read_bytes()
    with pytest.raises(JournalError) as caught:
        early.again()
    assert "--force keeps it aside" in caught.value.__notes__[0]
    assert early.journal.read_bytes() == spoilt
    early.again(force=True)
    assert early.noted() == list(range(NUM))
    assert early.out.read_text() == EXPECTED
    assert early.durable() == list(range(NUM))
    assert early.journal.with_name("journal.sqlite.before-1").read_bytes() == spoilt


@pytest.mark.parametrize(
    ("name", "text", "complaint"),
    [
        ("job.json", None, "nothing can be resumed from here: no job.json"),
        ("job.json", "{", "job.json: is damaged"),
        ("job.json", '{"input": 1}', "job.json: is damaged"),
        ("config.yaml", None, "nothing can be resumed from here: no config.yaml"),
        ("config.yaml", "{", "config.yaml"),
    ],
)
def test_a_directory_without_a_run_is_said_to_be_one(early, name, text, complaint):
    early.begin()
    path = early.folder / name
    path.unlink() if text is None else path.write_text(text)
    with pytest.raises(ConfigError, match=complaint):
        early.again()


def test_a_job_that_was_changed_by_hand_is_refused(early):
    early.begin()
    path = early.folder / "job.json"
    path.write_text(path.read_text().replace("/out", "/oux"))
    with pytest.raises(ConfigError, match=r"output: .*/out -> .*/oux"):
        early.again()


def test_no_such_directory_is_said_and_none_is_made(make_config, tmp_path):
    with Pipeline(make_config()) as pipeline, pytest.raises(ConfigError, match="no such run dir"):
        pipeline.resume(tmp_path / "none")
    assert not (tmp_path / "none").exists()


def test_a_run_that_goes_on_keeps_others_out(early):
    early.begin()
    with run_dir.kept_to_ourselves(early.folder), pytest.raises(ConfigError, match="another run"):
        early.again()


def test_a_worker_that_outlives_its_supervisor_is_waited_for(early, monkeypatch):
    early.begin()
    command = [sys.executable, "-c", "input()", "runtime.worker", "--parent-pid", "999999999"]
    with subprocess.Popen(command, stdin=subprocess.PIPE) as orphan:
        (early.folder / "workers.json").write_text(f'{{"write/0": {orphan.pid}}}')
        monkeypatch.setattr(run_dir, "ORPHANS_S", 0.1)
        with pytest.raises(ConfigError, match=f"worker write/0 of .* process {orphan.pid}, is st"):
            early.again()
        monkeypatch.setattr(run_dir, "ORPHANS_S", 60)
        waiting = threading.Timer(0.3, orphan.send_signal, [signal.SIGKILL])
        waiting.start()
        run_dir.wait_for_orphans(early.folder)
        assert orphan.poll() is not None
        waiting.join()
