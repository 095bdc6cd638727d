"""Hostile journals: damaged pages and logs, other people's databases, rows that lie."""

from __future__ import annotations

import hashlib
import os
import shutil
import sqlite3
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

import msgspec

from ipc.records import FileSum
from runtime.errors import JournalError
from runtime.journal import DurableRow, Journal
from runtime.row_file import RowFile
from tests.hostile.configs import check_line
from tests.hostile.corpus_files import corpus
from tests.hostile.mutate import damaged

FINGERPRINT = {"seed": 7, "shapes": {"encode.latents": [2, 16]}}
NUM_ROWS, PAGE = 6, 4096
OUTSIDE = b"a file of somebody else"
LINKED, PIPE, LOOP = "segments/linked.nut", "segments/pipe.nut", "segments/loop.nut"

STATEMENTS = [
    "CREATE TRIGGER t AFTER INSERT ON rows BEGIN DELETE FROM rows WHERE id < new.id; END",
    "CREATE TRIGGER t BEFORE INSERT ON rows BEGIN SELECT raise(ABORT, 'no'); END",
    "CREATE TRIGGER t BEFORE INSERT ON rows BEGIN SELECT raise(IGNORE); END",
    "CREATE TABLE other (a)",
    "CREATE INDEX i ON rows (payload)",
    "CREATE VIEW v AS SELECT 1",
    "ALTER TABLE rows RENAME TO others",
    "ALTER TABLE rows ADD COLUMN more DEFAULT (randomblob(100))",
    "CREATE VIRTUAL TABLE f USING fts5(a)",
    "DROP TABLE rows",
    "DELETE FROM rows",
    "DELETE FROM rows WHERE id = 1",
    "DELETE FROM rows WHERE id > 3",
    "UPDATE rows SET id = id + 1 WHERE id = (SELECT max(id) FROM rows)",
    "UPDATE rows SET id = -id WHERE id = 3",
    "UPDATE rows SET payload = zeroblob(1000000) WHERE id = 2",
    "UPDATE rows SET payload = 'text' WHERE id = 2",
    "UPDATE rows SET checksum = payload",
    "UPDATE rows SET payload = (SELECT payload FROM rows WHERE id = 3) WHERE id = 4",
    "INSERT INTO rows VALUES (9223372036854775807, x'00', x'00')",
    "PRAGMA user_version = -1",
    "PRAGMA application_id = 1",
    "PRAGMA journal_mode = DELETE",
    "VACUUM",
]
# What takes the place of the table: it runs for ever, or gives rows that nobody wrote.
VIEWS = [
    "CREATE VIEW rows AS WITH RECURSIVE n(id) AS (SELECT 1 UNION ALL SELECT id FROM n) "
    "SELECT id, x'00' AS payload, x'00' AS checksum FROM n",
    "CREATE VIEW rows AS SELECT id, payload, checksum FROM hidden",
]
VALUES = [
    None,
    -1,
    2**26,
    2**31,
    2**63,
    2**70,
    0.5,
    "text",
    "",
    [],
    [1, 2],
    [[1]],
    {},
    {"a": 1},
    True,
]
PATHS = ["../outside", "/etc/passwd", "", ".", "segments", "a/../../outside", LINKED, PIPE, LOOP]
PATHS += [
    "segments/0.nut\n",
    "\0",
    "/dev/zero",
    "/dev/stdin",
    "x" * 5000,
    "segments//0.nut",
    "//",
    "..",
]


@dataclass
class Case:
    """A run directory to be resumed."""

    files: dict[str, bytes]  # name -> content: the journal, and what lies beside it
    links: dict[str, str] = field(default_factory=dict)  # name -> where it leads
    told: list[DurableRow] | None = None  # what was recorded; None: a liar wrote rows of its own


class Surface:
    """Opens a journal, believes what it says, continues it."""

    max_bytes = 2**28

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._run = folder / "run"
        (folder / "outside").write_bytes(OUTSIDE)
        (folder / "victim").write_bytes(OUTSIDE)
        self._fill()
        self._rows = [_row(self._run, number) for number in range(NUM_ROWS)]
        self._bases = [self._base(0), self._base(2), self._base(NUM_ROWS)]
        self._others = [part for base in self._bases for part in base.values() if part]
        self._others += [self._foreign(), *corpus("journals").values()]

    def _fill(self) -> None:
        """Make the folder of a run anew, with its segments."""
        shutil.rmtree(self._run, ignore_errors=True)
        (self._run / "segments").mkdir(parents=True)
        (self._run / LINKED).symlink_to(self._folder / "outside")
        (self._run / LOOP).symlink_to(self._run / LOOP)
        os.mkfifo(self._run / PIPE)
        for number in range(NUM_ROWS):
            (self._run / f"segments/{number}.nut").write_bytes(_segment(number))

    def _base(self, num_rows: int) -> dict[str, bytes]:
        """Return a journal as a killed run leaves it, with its log, and as one at its end does."""
        path = self._run / "journal.sqlite"
        with Journal.create(path, FINGERPRINT) as journal:
            for row in self._rows[:num_rows]:
                journal.record(row)
            log = path.with_name("journal.sqlite-wal").read_bytes()
            torn = path.read_bytes()
        whole = path.read_bytes()
        path.unlink()
        return {"whole": whole, "torn": torn, "log": log}

    def _foreign(self) -> bytes:
        path = self._folder / "foreign.sqlite"
        with sqlite3.connect(path) as connection:
            connection.execute("CREATE TABLE rows (id INTEGER PRIMARY KEY, payload, checksum)")
            connection.execute("INSERT INTO rows VALUES (1, x'7b7d', x'00')")
        connection.close()
        return path.read_bytes()

    def make(self, rng: Random) -> Case:
        base, kind = rng.choice(self._bases), rng.randrange(10)
        whole = {"journal.sqlite": base["whole"]}
        torn = {"journal.sqlite": base["torn"], "journal.sqlite-wal": base["log"]}
        if kind < 3:
            files = dict(whole)
        elif kind < 6:
            files = dict(torn)
        elif kind < 8:
            return Case({"journal.sqlite": self._edited(rng, base["whole"])}, told=None)
        else:
            return self._beside(rng, dict(rng.choice((whole, torn))))
        name = rng.choice(list(files))
        files[name] = self._spoilt(rng, files[name])
        return Case(files, told=self._rows)

    def _spoilt(self, rng: Random, data: bytes) -> bytes:
        kind = rng.randrange(4)
        if kind == 0 and len(data) > 2 * PAGE:
            pages = [data[at : at + PAGE] for at in range(0, len(data), PAGE)]
            one, other = rng.randrange(len(pages)), rng.randrange(len(pages))
            pages[one], pages[other] = pages[other], pages[one]
            return b"".join(pages)
        if kind == 1:
            other = rng.choice(self._others)
            at = rng.randrange(len(data) // PAGE + 1) * PAGE
            return data[:at] + other[at : at + PAGE] + data[at + PAGE :]
        return damaged(rng, data, self._others)

    def _edited(self, rng: Random, data: bytes) -> bytes:
        """Return a journal in which somebody worked who knows SQLite, and our checksums."""
        path = self._folder / "edited.sqlite"
        path.write_bytes(data)
        if rng.random() < 0.5:
            _lie(rng, path, self._run)
        else:
            connection = sqlite3.connect(path, isolation_level=None)
            statements = rng.sample(STATEMENTS, rng.randint(1, 3))
            if rng.random() < 0.2:
                statements = ["ALTER TABLE rows RENAME TO hidden", rng.choice(VIEWS)]
            for statement in statements:
                try:
                    connection.execute(statement)
                except sqlite3.Error:
                    continue  # one that does not fit those before
            connection.close()
        return path.read_bytes()

    def _beside(self, rng: Random, files: dict[str, bytes]) -> Case:
        """Put something beside the journal, or in its place, that should not be there."""
        name = rng.choice(("-wal", "-journal", "-shm", ""))
        if rng.random() < 0.5:
            files.pop(f"journal.sqlite{name}", None)
            return Case(files, {f"journal.sqlite{name}": "victim"}, told=self._rows)
        content = rng.choice((b"", rng.randbytes(600), super_journal(self._folder / "victim")))
        files[f"journal.sqlite{name}"] = content
        return Case(files, told=self._rows)

    def judge(self, case: Case) -> None:
        for path in self._run.glob("journal*"):
            path.unlink()
        for name, content in case.files.items():
            (self._run / name).write_bytes(content)
        for name, leads in case.links.items():
            (self._run / name).symlink_to(self._folder / leads)
        try:
            self._believe(case)
        except JournalError as error:
            check_line(str(error), ("journal.sqlite",))
        assert (self._folder / "outside").read_bytes() == OUTSIDE
        assert (self._folder / "victim").read_bytes() == OUTSIDE

    def _believe(self, case: Case) -> None:
        path = self._run / "journal.sqlite"
        with Journal.open(path) as journal:
            assert isinstance(journal.fingerprint, dict)
            rows = list(journal.rows())[::-1]
            done = journal.done(self._run)
            if case.told is not None:
                assert journal.fingerprint == FINGERPRINT
                assert rows == case.told[: len(rows)], "not a beginning of what was recorded"
                assert list(done) == list(range(4 * len(rows)))
            assert not any(OUTSIDE_SUM in _sums(row) and _all_in(row, done) for row in rows)
            more = _row(self._run, NUM_ROWS - 1, first=4 * NUM_ROWS)
            journal.record(more)
        with Journal.open(path) as journal:
            assert list(journal.rows())[::-1] == [*rows, more], "was not continued"


def super_journal(victim: Path) -> bytes:
    """Return a rollback journal that names another file as its master, to be deleted."""
    name, magic = str(victim).encode(), bytes.fromhex("d9d505f920a163d7")
    header = magic + b"".join(number.to_bytes(4) for number in (0, 7, 2, 512))
    tail = (2**31 // PAGE).to_bytes(4) + name
    tail += len(name).to_bytes(4) + sum(name).to_bytes(4) + magic
    return header.ljust(512, b"\0") + PAGE.to_bytes(4) + tail


OUTSIDE_SUM = hashlib.sha256(OUTSIDE).hexdigest()


def _sums(row: DurableRow) -> set[str]:
    return {file.sha256 for file in row.files}


def _all_in(row: DurableRow, done) -> bool:
    """Whether the items of a row count as done, and no other row can be why."""
    return bool(row.items) and min(row.items) >= 1000 and all(item in done for item in row.items)


def _segment(number: int) -> bytes:
    return f"segment {number}".encode()


def _row(run: Path, number: int, *, first: int | None = None) -> DurableRow:
    data, items = _segment(number), range(4 * number, 4 * number + 4)
    if first is not None:
        items = range(first, first + 4)
    sha256 = hashlib.sha256(data).hexdigest()
    file = FileSum(path=f"segments/{number}.nut", bytes=len(data), sha256=sha256)
    return DurableRow(items=tuple(items), attempts=(0,) * 4, files=(file,), counts={"pairs": 8})


def _lie(rng: Random, path: Path, run: Path) -> None:
    """Append rows whose checksums are right."""
    rows = RowFile.open(path)
    for number in range(rng.randint(1, 3)):
        first = 1000 + 4 * number
        tree = msgspec.to_builtins(_row(run, rng.randrange(NUM_ROWS), first=first))
        if rng.random() < 0.5:
            where = rng.choice(PATHS)
            tree["files"] = [{"path": where, "bytes": len(OUTSIDE), "sha256": OUTSIDE_SUM}]
        else:
            at = tree if rng.random() < 0.6 else tree["files"][0]
            at[rng.choice([*at, "extra"])] = rng.choice(VALUES)
        payload = msgspec.json.encode(tree) if rng.random() < 0.9 else b"[" * 5000
        rows.append(damaged(rng, payload) if rng.random() < 0.2 else payload)
    rows.close()
