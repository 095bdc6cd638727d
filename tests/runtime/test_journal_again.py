"""A journal that is opened again: what it has, what is new in it, and what is set aside."""

import pytest

from runtime.errors import JournalDamaged, JournalEmpty, JournalError
from runtime.journal import DurableRow, Journal, set_journal_aside
from tests.runtime.test_journal import FINGERPRINT, make_journal, make_row


def test_what_is_new_is_told_apart_from_what_was_there(tmp_path):
    path = make_journal(tmp_path)
    with Journal.open(path) as journal:
        assert list(journal.written()) == []
        journal.record(make_row(tmp_path, 5))
        assert list(journal.written()) == [20, 21, 22, 23]
        assert len(journal.recorded()) == 16
    with Journal.open(path) as journal:
        assert list(journal.written()) == []


def test_what_was_recorded_is_known_when_its_files_are_gone(tmp_path):
    path = make_journal(tmp_path)
    (tmp_path / "1.mp4").unlink()
    with Journal.open(path) as journal:
        assert len(journal.done(tmp_path)) == 8
        assert len(journal.recorded()) == 12


def test_units_and_failed_items_are_summed_over_the_rows_that_hold(tmp_path):
    with Journal.create(tmp_path / "j", FINGERPRINT) as journal:
        for item, why in ((0, ""), (1, "add: no"), (1, "add: never")):
            failed = ((item, why),) if why else ()
            row = DurableRow(
                items=(item,), attempts=(0,), files=(), counts={}, units=4 - item, failed=failed
            )
            journal.record(row)
        done = journal.done(tmp_path)
    assert (done.units, done.failed) == (7, {1: "add: never"})


def test_an_empty_journal_and_a_damaged_one_are_told_apart_from_one_in_use(tmp_path):
    (tmp_path / "empty").touch()
    with pytest.raises(JournalEmpty):
        Journal.open(tmp_path / "empty")
    (tmp_path / "text").write_text("no journal")
    with pytest.raises(JournalDamaged) as caught:
        Journal.open(tmp_path / "text")
    assert not isinstance(caught.value, JournalEmpty)
    path = make_journal(tmp_path)
    with Journal.open(path), pytest.raises(JournalError) as caught:
        Journal.open(path)
    assert not isinstance(caught.value, JournalDamaged)


def test_a_journal_that_is_set_aside_takes_its_log_along(tmp_path):
    """SQLite would play a log that is left into the next journal of the name."""
    path = make_journal(tmp_path)
    (tmp_path / "journal.sqlite-wal").write_bytes(b"log")
    (tmp_path / "journal.sqlite.before-1").touch()
    aside = set_journal_aside(path)
    assert aside.name == "journal.sqlite.before-2"
    assert (tmp_path / "journal.sqlite.before-2-wal").read_bytes() == b"log"
    assert not path.exists()
    with Journal.create(path, FINGERPRINT) as journal:
        assert list(journal.rows()) == []
