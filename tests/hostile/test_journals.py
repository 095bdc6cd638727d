"""Whatever lies in a run directory as its journal: a beginning of what was recorded, or refused."""

import os
from pathlib import Path

import pytest

from ipc.records import FileSum
from runtime.errors import JournalError
from runtime.files import file_sum
from runtime.journal import DurableRow, Journal
from runtime.row_file import RowFile
from tests.hostile import cases
from tests.hostile.corpus_files import corpus
from tests.hostile.journals import super_journal

SHA256 = "0" * 64


@cases.seeds(short=250)
def test_every_journal_is_a_beginning_of_what_was_recorded_or_refused(tmp_path, first, number):
    assert cases.defects_of("journals", tmp_path, first, number) == []


@pytest.fixture
def keep(tmp_path):
    """Put a kept journal into a run directory; return its path."""

    def put(name):
        path = tmp_path / "journal.sqlite"
        path.write_bytes(corpus("journals")[name])
        return path

    return put


@pytest.mark.parametrize("name", ["a_trigger", "rows_that_never_end"])
def test_a_journal_that_is_more_than_its_table_is_refused(name, keep):
    path = keep(name)
    with pytest.raises(JournalError, match=r"is no journal of a run|no such table"):
        Journal.open(path)


@pytest.mark.parametrize("suffix", ["", "-wal", "-journal"])
def test_a_link_in_place_of_a_journal_is_not_followed(suffix, keep, tmp_path):
    path, victim = keep("whole"), tmp_path / "victim"
    victim.write_bytes(path.read_bytes())
    link = path.with_name(path.name + suffix)
    link.unlink(missing_ok=True)
    link.symlink_to(victim)
    with pytest.raises(JournalError, match="is a symbolic link"):
        Journal.open(path)
    assert victim.read_bytes() == corpus("journals")["whole"]


def test_a_rollback_journal_beside_it_deletes_no_file_that_it_names(keep, tmp_path):
    """SQLite acts upon one before anything of the database can be looked at."""
    path, victim = keep("whole"), tmp_path / "victim"
    victim.write_bytes(b"a file of somebody else")
    path.with_name("journal.sqlite-journal").write_bytes(super_journal(victim))
    with pytest.raises(JournalError, match="is a rollback journal, which no run leaves"):
        Journal.open(path)
    assert victim.read_bytes() == b"a file of somebody else"


def test_a_database_of_another_program_is_left_as_it_is(keep, tmp_path):
    path = keep("whole")
    content = bytearray(path.read_bytes())
    content[18:20] = b"\1\1"  # no write-ahead log
    path.write_bytes(content)
    with pytest.raises(JournalError, match="is an SQLite file, but no journal of a run"):
        Journal.open(path)
    assert path.read_bytes() == content


def row_with(path):
    return DurableRow(
        items=(0,), attempts=(0,), files=(FileSum(path=path, bytes=1, sha256=SHA256),), counts={}
    )


@pytest.mark.parametrize("path", ["/etc/passwd", "../x", "a/../../x", "", "a\nb", "\0"])
def test_a_row_of_a_file_elsewhere_is_refused(path, tmp_path):
    RowFile.create(tmp_path / "j", b"{}").close()
    rows = RowFile.open(tmp_path / "j")
    text = '{"items":[0],"attempts":[0],"counts":{},"files":[{"path":%s,"bytes":1,"sha256":""}]}'
    escaped = {"\n": '"a\\nb"', "\0": '"\\u0000"'}.get(path[-1:] if path == "\0" else path[1:2])
    rows.append((text % (escaped or f'"{path}"')).encode())
    rows.close()
    with (
        Journal.open(tmp_path / "j") as journal,
        pytest.raises(JournalError, match="is not in its run directory"),
    ):
        list(journal.rows())
    with pytest.raises(ValueError, match="is not in its run directory"):
        row_with(path)


@pytest.mark.parametrize(
    ("payload", "why"), [(b"[]", "Expected `object`"), (b"{", "truncated"), (b"[" * 5000, "")]
)
def test_a_fingerprint_that_is_none_is_said(payload, why, tmp_path):
    RowFile.create(tmp_path / "j", payload).close()
    with (
        Journal.open(tmp_path / "j") as journal,
        pytest.raises(JournalError, match=f"its fingerprint cannot be read: .*{why}"),
    ):
        _ = journal.fingerprint


def test_a_row_whose_items_and_attempts_differ_is_refused():
    with pytest.raises(ValueError, match="2 items and 1 attempts"):
        DurableRow(items=(0, 1), attempts=(0,), files=(), counts={})


def test_a_file_that_is_linked_from_elsewhere_or_is_a_pipe_is_not_read(tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    (tmp_path / "outside").write_bytes(b"x")
    (run / "link").symlink_to(tmp_path / "outside")
    os.mkfifo(run / "pipe")
    for name, why in (("link", "not in its run directory"), ("pipe", "not a regular file")):
        with pytest.raises(OSError, match=why):
            file_sum(str(run), name)
    (run / "own").write_bytes(b"x")
    assert file_sum(str(run), "own").bytes == 1
    assert Path(run / "link").exists()
