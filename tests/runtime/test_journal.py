"""What is acknowledged is never lost, and what is damaged is never believed."""

import hashlib
import signal
import sqlite3
import subprocess
import sys

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ipc.records import FileSum
from runtime.errors import JournalError
from runtime.journal import DurableRow, Journal
from runtime.row_file import RowFile

FINGERPRINT = {"seed": 7, "shapes": {"encode.latents": [2, 16]}, "note": "a film"}


def make_row(work_dir, number, *, items=None, attempt=0, text=None):
    """Return row `number` of items [4n, 4n + 4), with a real file."""
    data = (text or f"segment {number}").encode()
    (work_dir / f"{number}.mp4").write_bytes(data)
    file = FileSum(path=f"{number}.mp4", bytes=len(data), sha256=hashlib.sha256(data).hexdigest())
    items = tuple(items or range(4 * number, 4 * number + 4))
    counts = {"frame pairs": 8, "scene cuts": number}
    return DurableRow(items=items, attempts=(attempt,) * len(items), files=(file,), counts=counts)


def make_journal(work_dir, num_rows=3):
    path = work_dir / "journal.sqlite"
    with Journal.create(path, FINGERPRINT) as journal:
        for number in range(num_rows):
            journal.record(make_row(work_dir, number))
    return path


def test_what_was_recorded_is_read_again(tmp_path):
    with Journal.open(make_journal(tmp_path)) as journal:
        assert journal.fingerprint == FINGERPRINT
        assert list(journal.rows()) == [make_row(tmp_path, number) for number in (2, 1, 0)]
        done = journal.done(tmp_path)
    assert list(done) == list(range(12))
    assert (len(done), 11 in done, 12 in done, -1 in done) == (12, True, False, False)
    assert done.counts == {"frame pairs": 24, "scene cuts": 3}
    assert (done.num_files, done.problems) == (3, ())


def test_a_new_journal_has_nothing_done(tmp_path):
    with Journal.create(tmp_path / "j", FINGERPRINT) as journal:
        assert journal.fingerprint == FINGERPRINT
        assert list(journal.done(tmp_path)) == []


def test_a_run_is_reopened_and_continued(tmp_path):
    path = make_journal(tmp_path)
    with Journal.open(path) as journal:
        journal.record(make_row(tmp_path, 5))
        assert journal.stats().num_rows == 1
        assert journal.stats().slowest_record_s <= journal.stats().record_s
    with Journal.open(path) as journal:
        assert list(journal.done(tmp_path)) == [*range(12), *range(20, 24)]
    assert [file.name for file in tmp_path.glob("journal*")] == ["journal.sqlite"]


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda file: file.unlink(), "1.mp4: No such file or directory"),
        (lambda file: file.write_bytes(b"short"), "1.mp4 has 5 bytes, and had 9"),
        (lambda file: file.write_bytes(b"segment X"), "1.mp4 has changed"),
    ],
)
def test_items_of_a_spoilt_file_have_to_be_made_again(tmp_path, spoil, reason):
    path = make_journal(tmp_path)
    spoil(tmp_path / "1.mp4")
    with Journal.open(path) as journal:
        done = journal.done(tmp_path)
        assert list(done) == [*range(4), *range(8, 12)]
        assert done.counts == {"frame pairs": 16, "scene cuts": 2}
        assert done.problems == (f"items [4, 5, 6, 7] have to be made again: {reason}",)
        journal.record(make_row(tmp_path, 1, attempt=1, text="made again"))
        again = journal.done(tmp_path)
    assert list(again) == list(range(12))
    assert again.counts == {"frame pairs": 24, "scene cuts": 3}
    assert again.problems == ()


def test_a_second_writer_is_told_so(tmp_path):
    path = make_journal(tmp_path)
    with Journal.open(path), pytest.raises(JournalError, match="another run is using this journal"):
        Journal.open(path)
    Journal.open(path).close()


def test_a_second_process_is_told_so(tmp_path):
    path = make_journal(tmp_path)
    with Journal.open(path) as journal:
        journal.record(make_row(tmp_path, 3))
        other = run_python(f"Journal.open(Path({str(path)!r}))")
    assert other.returncode == 1
    assert b"another run is using this journal" in other.stderr


def test_a_journal_is_never_overwritten(tmp_path):
    path = make_journal(tmp_path)
    with pytest.raises(JournalError, match="there is a journal already; resume its run"):
        Journal.create(path, FINGERPRINT)


def test_a_folder_that_is_missing_is_said(tmp_path):
    with pytest.raises(JournalError, match=r"nope/j: cannot be made: No such file or directory"):
        Journal.create(tmp_path / "nope/j", FINGERPRINT)


def sqlite(path, *statements):
    connection = sqlite3.connect(path)
    for statement in statements:
        connection.execute(statement)
    connection.commit()
    connection.close()


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda path: path.unlink(), "no such journal; nothing can be resumed from here"),
        (lambda path: path.write_bytes(b""), "has no fingerprint: its run ended before it began"),
        (lambda path: path.write_bytes(b"x" * 5000), "is no journal of a run: file is not a data"),
        (
            lambda path: sqlite(path, "PRAGMA application_id = 3"),
            "is an SQLite file, but no journal of a run",
        ),
        (lambda path: sqlite(path, "PRAGMA user_version = 9"), "has format 9, and this version"),
        (lambda path: sqlite(path, "DELETE FROM rows"), "has no fingerprint"),
        (lambda path: sqlite(path, "DELETE FROM rows WHERE id = 1"), "row 1 is missing"),
        (lambda path: sqlite(path, "DELETE FROM rows WHERE id = 3"), "row 3 is missing"),
        (lambda path: sqlite(path, "DROP TABLE rows"), "no such table: rows"),
        (
            lambda path: sqlite(path, "UPDATE rows SET payload = 7 WHERE id = 3"),
            "row 3 is damaged: wrong checksum",
        ),
        (
            lambda path: sqlite(
                path,
                "CREATE TABLE other AS SELECT payload, checksum FROM rows WHERE id = 2",
                "UPDATE rows SET (payload, checksum) = (SELECT * FROM other) WHERE id = 3",
                "DROP TABLE other",
            ),
            "row 3 is damaged: wrong checksum",
        ),
    ],
)
def test_what_is_wrong_with_a_journal_is_said(tmp_path, spoil, reason):
    path = make_journal(tmp_path)
    spoil(path)
    with pytest.raises(JournalError, match=reason) as caught:
        Journal.open(path)
    assert str(caught.value).startswith(f"{path}: ")


@pytest.mark.parametrize("number", range(4))
def test_every_flipped_byte_of_a_payload_is_noticed(tmp_path, number):
    path = make_journal(tmp_path)
    payload = payload_of(path, number + 1)
    whole = path.read_bytes()
    start = whole.index(payload)
    for at in range(start, start + len(payload)):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 0x10]) + whole[at + 1 :])
        with pytest.raises(JournalError, match=f"row {number + 1} is damaged: wrong checksum"):
            Journal.open(path)


def test_a_schema_that_no_longer_numbers_its_rows_is_noticed(tmp_path):
    path = make_journal(tmp_path)
    path.write_bytes(path.read_bytes().replace(b"INTEGER PRIMARY", b"INTEGES PRIMARY"))
    with pytest.raises(JournalError, match="damaged"):
        Journal.open(path)


def payload_of(path, row_id):
    connection = sqlite3.connect(path)
    ((payload,),) = connection.execute("SELECT payload FROM rows WHERE id = ?", (row_id,))
    connection.close()
    return payload


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    make_journal(folder)
    return folder


@settings(max_examples=100, deadline=None)
@given(where=st.floats(0, 1, exclude_max=True), flip=st.integers(1, 255))
def test_no_damage_anywhere_makes_a_journal_claim_too_much(whole, where, flip):
    folder, content = whole, (whole / "journal.sqlite").read_bytes()
    at = int(where * len(content))
    path = folder / "damaged"
    path.write_bytes(content[:at] + bytes([content[at] ^ flip]) + content[at + 1 :])
    written = [make_row(folder, number) for number in range(3)]
    try:
        with Journal.open(path) as journal:
            assert journal.fingerprint == FINGERPRINT
            assert all(row in written for row in journal.rows())
    except JournalError as error:
        assert str(error).startswith(f"{path}: ")  # noqa: PT017
        assert "\n" not in str(error)  # noqa: PT017


IMPORTS = "from pathlib import Path\nfrom runtime.journal import *\n"


def run_python(code):
    command = [sys.executable, "-c", IMPORTS + code]
    return subprocess.run(command, capture_output=True, check=False, timeout=60)


WRITER = """
import os, sys
with Journal.create(Path(sys.argv[1]), {"seed": 1}) as journal:
    for item in range(100000):
        journal.record(DurableRow(items=(item,), attempts=(0,), files=(), counts={"x" * 50: 1}))
        os.write(1, b"%d\\n" % item)
"""


@pytest.mark.parametrize("num_acknowledged", [1, 7, 60, 300])
def test_a_killed_writer_loses_no_acknowledged_row(tmp_path, num_acknowledged):
    path = tmp_path / "journal.sqlite"
    command = [sys.executable, "-c", IMPORTS + WRITER, str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, bufsize=0) as writer:
        acknowledged = b""
        while acknowledged.count(b"\n") < num_acknowledged:
            acknowledged += writer.stdout.read(64)
        writer.send_signal(signal.SIGKILL)
        while part := writer.stdout.read(4096):
            acknowledged += part
    num_rows = acknowledged.count(b"\n")
    with Journal.open(path) as journal:
        done = journal.done(tmp_path)
        assert num_rows <= len(done) <= num_rows + 1
        assert list(done) == list(range(len(done)))
        journal.record(DurableRow(items=(len(done),), attempts=(1,), files=(), counts={}))
    with Journal.open(path) as journal:
        assert len(journal.done(tmp_path)) == len(done) + 1


def test_a_truncated_log_is_an_older_state(tmp_path):
    path = tmp_path / "journal.sqlite"
    with Journal.create(path, FINGERPRINT) as journal:
        for number in range(6):
            journal.record(make_row(tmp_path, number))
        log = (tmp_path / "journal.sqlite-wal").read_bytes()
        (tmp_path / "copy").write_bytes(path.read_bytes())
    (tmp_path / "copy-wal").write_bytes(log[: len(log) * 2 // 3])
    with Journal.open(tmp_path / "copy") as journal:
        done = list(journal.done(tmp_path))
    assert 0 < len(done) < 24
    assert done == list(range(len(done)))


def test_a_full_disk_is_said_and_what_was_written_stays(tmp_path):
    path = tmp_path / "journal.sqlite"
    code = f"""
import resource, signal
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
journal = Journal.create(Path({str(path)!r}), {{}})
resource.setrlimit(resource.RLIMIT_FSIZE, (40000, 40000))
for item in range(1000):
    journal.record(DurableRow(items=(item,), attempts=(0,), files=(), counts={{"y" * 500: 1}}))
    print(item, flush=True)
"""
    full = run_python(code)
    acknowledged = full.stdout.count(b"\n")
    assert b"JournalError" in full.stderr
    assert 0 < acknowledged < 1000
    with Journal.open(path) as journal:
        assert len(journal.done(tmp_path)) == acknowledged


def test_a_million_items_take_a_megabyte(tmp_path):
    row = DurableRow(items=(10**6 - 1,), attempts=(0,), files=(), counts={})
    with Journal.create(tmp_path / "j", {}) as journal:
        journal.record(row)
        done = journal.done(tmp_path)
    assert len(done.flags) == 10**6
    assert list(done) == [10**6 - 1]


def test_a_row_of_another_kind_is_said(tmp_path):
    RowFile.create(tmp_path / "j", b"{}").close()
    rows = RowFile.open(tmp_path / "j")
    rows.append(msgspec.json.encode({"items": [-1]}))
    rows.close()
    with Journal.open(tmp_path / "j") as journal, pytest.raises(JournalError, match="row 2 cannot"):
        journal.done(tmp_path)
