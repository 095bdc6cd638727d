"""What of a run is durable: one file, written by one process, which a resumed run reads.

Files first, journal after: a row is only written of files that are closed and synced. So what the
journal says is true, and what it lacks is merely done again. It must not know what an item or a
file holds.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import compress, count
from pathlib import Path
from types import TracebackType
from typing import Annotated, Self

import msgspec

from ipc.records import FileSum
from runtime.errors import JournalError
from runtime.files import file_sum, is_inside
from runtime.row_file import RowFile

MAX_ITEMS = 2**26  # `done` takes a byte an item; at one frame pair an item two weeks of video

ItemIndex = Annotated[int, msgspec.Meta(ge=0, lt=MAX_ITEMS)]


class DurableRow(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Items that became durable together, and the files that hold them."""

    items: tuple[ItemIndex, ...]
    attempts: tuple[int, ...]  # one an item
    files: tuple[FileSum, ...]  # relative to the job's work_dir
    counts: dict[str, int]  # {"frame pairs": 8, "scene cuts": 1}

    def __post_init__(self) -> None:
        """Refuse, of a row that is read, what no run records."""
        if len(self.items) != len(self.attempts):
            raise ValueError(f"{len(self.items)} items and {len(self.attempts)} attempts")
        for file in self.files:
            if not is_inside(file.path):
                raise ValueError(f"file {file.path!r} is not in its run directory")


@dataclass(frozen=True, slots=True)
class DoneItems:
    """What need not be done again."""

    flags: bytes  # one byte an item, 1 = durable
    counts: Mapping[str, int]  # summed over the rows that hold
    num_files: int
    problems: tuple[str, ...]  # one for each row whose files are not as they were

    def __contains__(self, item: object) -> bool:
        return isinstance(item, int) and 0 <= item < len(self.flags) and self.flags[item] == 1

    def __iter__(self) -> Iterator[int]:
        return compress(count(), self.flags)

    def __len__(self) -> int:
        return self.flags.count(1)


@dataclass(frozen=True, slots=True)
class JournalStats:
    """What recording cost since the journal was opened; it is mostly waiting for the disk."""

    num_rows: int
    record_s: float
    slowest_record_s: float


class Journal:
    """Owns the journal of a run, and locks out every other process until `close`.

    Never open its file by other means in this process (see RowFile). Not thread-safe.
    """

    def __init__(self, rows: RowFile) -> None:
        """For `create` and `open` only."""
        self._rows = rows
        self._stats = JournalStats(0, 0.0, 0.0)

    @classmethod
    def create(cls, path: Path, fingerprint: Mapping[str, object]) -> Self:
        """Begin the journal of a new run.

        Args:
            path: must not exist.
            fingerprint: what the results depend on; JSON values.

        Raises:
            JournalError: there is one already, or it cannot be written.
        """
        return cls(RowFile.create(path, json.dumps(fingerprint, sort_keys=True).encode()))

    @classmethod
    def open(cls, path: Path) -> Self:
        """Open the journal of an earlier run and check every row of it.

        Raises:
            JournalError: it is missing, damaged, no journal, or used by another run.
        """
        return cls(RowFile.open(path))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def path(self) -> Path:
        """The file."""
        return self._rows.path

    @property
    def fingerprint(self) -> dict[str, object]:
        """What the results of this run depend on, as given to `create`.

        Raises:
            JournalError: it is no JSON object.
        """
        try:
            return _fingerprints.decode(self._rows.first())
        except _UNREADABLE as error:
            raise JournalError(f"{self.path}: its fingerprint cannot be read: {error}") from error

    def record(self, row: DurableRow) -> None:
        """Write down that the items of `row` are durable; they are when this returns.

        Items recorded before are replaced: their files were lost and have been made again.

        Raises:
            JournalError: the disk is full or broken.
        """
        started = time.monotonic()
        self._rows.append(msgspec.json.encode(row, order="deterministic"))
        took, stats = time.monotonic() - started, self._stats
        self._stats = JournalStats(
            stats.num_rows + 1, stats.record_s + took, max(stats.slowest_record_s, took)
        )

    def rows(self) -> Iterator[DurableRow]:
        """Yield what was recorded, the newest first; one row is in memory at a time.

        Raises:
            JournalError: a row is damaged.
        """
        for number, payload in self._rows.newest():
            try:
                yield _decoder.decode(payload)
            except _UNREADABLE as error:
                raise JournalError(f"{self.path}: row {number} cannot be read: {error}") from error

    def done(self, work_dir: Path) -> DoneItems:
        """Return the items whose files in `work_dir` are as they were recorded; reads them all.

        Raises:
            JournalError: a row is damaged.
        """
        flags, counts, num_files, problems = bytearray(), Counter[str](), 0, list[str]()
        for row in self.rows():
            flags.extend(bytes(max(0, max(row.items, default=-1) + 1 - len(flags))))
            if all(flags[item] for item in row.items):
                continue  # a newer row says it all
            if problem := next(filter(None, (_problem(work_dir, file) for file in row.files)), ""):
                problems.append(f"items {list(row.items)} have to be made again: {problem}")
                continue
            for item in row.items:
                flags[item] = 1
            counts.update(row.counts)
            num_files += len(row.files)
        return DoneItems(bytes(flags), dict(counts), num_files, tuple(problems))

    def stats(self) -> JournalStats:
        """Return what `record` cost."""
        return self._stats

    def close(self) -> None:
        """Let others open the file. Idempotent."""
        self._rows.close()


def _problem(work_dir: Path, file: FileSum) -> str:
    try:
        found = file_sum(str(work_dir), file.path)
    except OSError as error:
        return f"{file.path}: {error.strerror}"
    if found.bytes != file.bytes:
        return f"{file.path} has {found.bytes} bytes, and had {file.bytes}"
    return "" if found == file else f"{file.path} has changed"


# The latter two of text that is no UTF-8, and of arrays in arrays without end.
_UNREADABLE = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)
_decoder = msgspec.json.Decoder(DurableRow)
_fingerprints = msgspec.json.Decoder(dict[str, object])
