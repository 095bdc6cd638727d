"""Rows of bytes in one SQLite file, each with a checksum, appended by one process at a time.

A row is on the disk when `append` returns. A damaged row is an error and never a wrong answer:
SQLite notices a damaged page structure, but no flipped byte. A truncated write-ahead log opens as
an older state, with fewer rows. It must not know what the rows say.
"""

from __future__ import annotations

import hashlib
import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Self

from runtime.atomic import sync_folder
from runtime.errors import JournalDamaged, JournalEmpty, JournalError

APPLICATION_ID = 0x72756E70  # "runp", in the file's header
FORMAT = 1  # +1 when the rows of before can no longer be read

MAX_ROW_BYTES = 2**26  # a larger one is no row of ours
_CHECKSUM_BYTES = 16
_HEADER_BYTES, _MAGIC = 100, b"SQLite format 3\0"
_VERSIONS, _WAL_VERSIONS = slice(18, 20), b"\2\2"  # of who may write and read it
_SQLITE_ERRORS = (sqlite3.Error, UnicodeDecodeError)  # the latter quotes a damaged schema
_SCHEMA = (
    "CREATE TABLE rows (id INTEGER PRIMARY KEY, payload BLOB NOT NULL, checksum BLOB NOT NULL)"
)


class RowFile:
    """Owns the file, and locks out every other process until `close`. Not thread-safe.

    Never open the file by other means in this process: closing that would drop SQLite's lock.
    """

    def __init__(self, path: Path, connection: sqlite3.Connection) -> None:
        """For `create` and `open` only."""
        self.path = path
        self._connection = connection

    @classmethod
    def create(cls, path: Path, first: bytes) -> Self:
        """Make a file with one row.

        Raises:
            JournalError: it is there already, or cannot be written.
        """
        try:
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644))
            sync_folder(path.parent)
        except FileExistsError as error:
            raise JournalError(
                f"{path}: there is a journal already; resume its run, or use another run directory"
            ) from error
        except OSError as error:
            raise JournalError(f"{path}: cannot be made: {error.strerror}") from error
        rows = cls(path, _connect(path))
        try:
            rows._begin(first)
        except sqlite3.Error as error:
            rows.close()
            raise _explained(path, error) from error
        return rows

    @classmethod
    def open(cls, path: Path) -> Self:
        """Open a file and check every row of it.

        Raises:
            JournalError: it is missing, damaged, of another kind, or used by another process.
        """
        if not path.is_file():
            raise JournalError(f"{path}: no such journal; nothing can be resumed from here")
        _check_before_opening(path)
        rows = cls(path, _connect(path))
        try:
            rows._check()
        except JournalError:
            rows.close()
            raise
        except _SQLITE_ERRORS as error:
            rows.close()
            raise _explained(path, error) from error
        return rows

    def append(self, payload: bytes) -> None:
        """Add a row; it survives the death of everything when this returns.

        Raises:
            JournalError: the disk is full or broken; the rows before are still right.
        """
        try:
            self._append(payload)
        except sqlite3.Error as error:
            raise _explained(self.path, error) from error

    def first(self) -> bytes:
        """Return the row that `create` wrote."""
        return next(self._payloads("id = 1"))[1]

    def newest(self) -> Iterator[tuple[int, bytes]]:
        """Yield (number, payload) of all rows but the first, the newest first.

        Raises:
            JournalError: a row is damaged.
        """
        return self._payloads("id > 1 ORDER BY id DESC")

    def close(self) -> None:
        """Let others open the file. Idempotent."""
        self._connection.close()

    def _begin(self, first: bytes) -> None:
        self._connection.execute("BEGIN IMMEDIATE")  # all or nothing, should we be killed here
        self._connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        self._connection.execute(f"PRAGMA user_version = {FORMAT}")
        self._connection.execute(_SCHEMA)
        self._append(first)
        self._connection.execute("COMMIT")

    def _append(self, payload: bytes) -> None:
        row_id = self._number("SELECT coalesce(max(id), 0) FROM rows") + 1
        self._connection.execute(
            "INSERT INTO rows VALUES (?, ?, ?)", (row_id, payload, _checksum(row_id, payload))
        )

    def _check(self) -> None:
        made_by, form = self._number("PRAGMA application_id"), self._number("PRAGMA user_version")
        if made_by == 0 and self._number("SELECT count(*) FROM sqlite_schema") == 0:
            raise JournalEmpty(f"{self.path}: has no fingerprint: its run ended before it began")
        if made_by != APPLICATION_ID:
            raise JournalDamaged(f"{self.path}: is an SQLite file, but no journal of a run")
        if form != FORMAT:
            raise JournalDamaged(f"{self.path}: has format {form}, and this version reads {FORMAT}")
        self._check_schema()
        (verdict,) = self._connection.execute("PRAGMA quick_check(1)").fetchone()
        if verdict != "ok":
            raise JournalDamaged(f"{self.path}: is damaged: {' '.join(verdict.split())}")
        self._check_rows()

    def _check_schema(self) -> None:
        """Refuse all but our one table: a view may run for ever, a trigger undo what is written."""
        found = self._connection.execute("SELECT type, name, sql FROM sqlite_schema").fetchall()
        if ("table", "rows", _SCHEMA) not in found:
            raise JournalDamaged(f"{self.path}: is damaged: no such table: rows")
        if len(found) > 1:
            raise JournalDamaged(
                f"{self.path}: is no journal of a run: {len(found) - 1} more in it"
            )

    def _check_rows(self) -> None:
        wanted = 0
        for wanted, (row_id, _payload) in enumerate(self._payloads("1 ORDER BY id"), start=1):
            if row_id != wanted:
                raise JournalDamaged(f"{self.path}: row {wanted} is missing")
        if wanted == 0:
            raise JournalDamaged(f"{self.path}: has no fingerprint")

    def _payloads(self, which: str) -> Iterator[tuple[int, bytes]]:
        query = f"SELECT id, payload, checksum FROM rows WHERE {which}"
        try:
            for row_id, payload, checksum in self._connection.execute(query):
                types = type(row_id), type(payload)  # a damaged schema gives anything
                if types != (int, bytes) or checksum != _checksum(row_id, payload):
                    raise JournalDamaged(f"{self.path}: row {row_id} is damaged: wrong checksum")
                yield row_id, payload
        except _SQLITE_ERRORS as error:
            raise _explained(self.path, error) from error

    def _number(self, query: str) -> int:
        (value,) = self._connection.execute(query).fetchone()
        return int(value)


def _check_before_opening(path: Path) -> None:
    """Refuse what SQLite would act upon before anything of it can be looked at.

    It would make a write-ahead log of any SQLite file, follow links to write elsewhere, and undo by
    a rollback journal, which no run leaves: that can name other files, to be deleted.
    """
    beside = [path.with_name(path.name + suffix) for suffix in ("", "-wal", "-shm", "-journal")]
    for each in beside:
        if each.is_symlink():
            raise JournalError(f"{each}: is a symbolic link, which no run makes")
    if beside[-1].exists():
        raise JournalError(f"{beside[-1]}: is a rollback journal, which no run leaves")
    try:
        with path.open("rb") as file:
            header = file.read(_HEADER_BYTES)
    except OSError as error:
        raise JournalError(f"{path}: cannot be read: {error.strerror}") from error
    if header.startswith(_MAGIC) and header[_VERSIONS] != _WAL_VERSIONS:
        raise JournalError(f"{path}: is an SQLite file, but no journal of a run")


def _connect(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, timeout=0, isolation_level=None)
    try:
        connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, MAX_ROW_BYTES)
        connection.execute("PRAGMA trusted_schema = OFF")
        connection.execute("PRAGMA cell_size_check = ON")
        connection.execute("PRAGMA locking_mode = EXCLUSIVE")  # first: then WAL needs no -shm file
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")  # a row outlives a power cut
        connection.execute("BEGIN EXCLUSIVE")
        connection.execute("COMMIT")
    except _SQLITE_ERRORS as error:
        connection.close()
        raise _explained(path, error) from error
    return connection


def _checksum(row_id: int, payload: bytes) -> bytes:
    content = row_id.to_bytes(8, "little", signed=True) + payload
    return hashlib.blake2b(content, digest_size=_CHECKSUM_BYTES).digest()


def _explained(path: Path, error: Exception) -> JournalError:
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF  # the upper bits say more than is needed
    text = " ".join(str(error).split())
    if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return JournalError(f"{path}: another run is using this journal")
    if code == sqlite3.SQLITE_NOTADB:
        return JournalDamaged(f"{path}: is no journal of a run: {text}")
    if code == sqlite3.SQLITE_CORRUPT or isinstance(error, UnicodeDecodeError):
        return JournalDamaged(f"{path}: is damaged: {text}")
    return JournalError(f"{path}: {text}")
