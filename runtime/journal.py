"""What of a run is durable: one file, written by one process, which a resumed run reads.

Files first, journal after: a row is only written of files that are closed and synced. So what the
journal says is true, and what it lacks is merely done again. It must not know what an item or a
file holds.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import compress, count
from pathlib import Path
from types import TracebackType
from typing import Annotated, Self

import msgspec

from ipc.records import FileSum
from runtime.atomic import sync_folder
from runtime.errors import JournalDamaged
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
    units: int = 0  # really done in these items
    failed: tuple[tuple[ItemIndex, str], ...] = ()  # why some of them are not whole

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
    units: int = 0  # summed likewise
    failed: Mapping[int, str] = field(default_factory=dict)  # item -> why it is not whole

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
        self._num_before = next(rows.newest(), (0, b""))[0]  # the last row of earlier runs
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
            raise JournalDamaged(f"{self.path}: its fingerprint cannot be read: {error}") from error

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
        return (row for _number, row in self._numbered())

    def _numbered(self) -> Iterator[tuple[int, DurableRow]]:
        for number, payload in self._rows.newest():
            try:
                yield number, _decoder.decode(payload)
            except _UNREADABLE as error:
                raise JournalDamaged(
                    f"{self.path}: row {number} cannot be read: {error}"
                ) from error

    def done(self, work_dir: Path) -> DoneItems:
        """Return the items whose files in `work_dir` are as they were recorded; reads them all.

        Raises:
            JournalError: a row is damaged.
        """
        return self._sum(self.rows(), lambda file: _problem(work_dir, file))

    def recorded(self) -> DoneItems:
        """Return the items that were durable once, whatever became of their files since.

        Raises:
            JournalError: a row is damaged.
        """
        return self._sum(self.rows(), lambda _file: "")

    def written(self) -> DoneItems:
        """Return the items that were recorded since the journal was opened."""
        since = (row for number, row in self._numbered() if number > self._num_before)
        return self._sum(since, lambda _file: "")

    @staticmethod
    def _sum(rows: Iterable[DurableRow], problem_of: Callable[[FileSum], str]) -> DoneItems:
        flags, counts, num_files, problems = bytearray(), Counter[str](), 0, list[str]()
        units, failed = 0, dict[int, str]()
        for row in rows:
            flags.extend(bytes(max(0, max(row.items, default=-1) + 1 - len(flags))))
            if all(flags[item] for item in row.items):
                continue  # a newer row says it all
            if problem := next(filter(None, map(problem_of, row.files)), ""):
                problems.append(f"items {list(row.items)} have to be made again: {problem}")
                continue
            for item in row.items:
                flags[item] = 1
            counts.update(row.counts)
            num_files += len(row.files)
            units += row.units
            failed |= dict(row.failed)
        return DoneItems(bytes(flags), dict(counts), num_files, tuple(problems), units, failed)

    def stats(self) -> JournalStats:
        """Return what `record` cost."""
        return self._stats

    def close(self) -> None:
        """Let others open the file. Idempotent."""
        self._rows.close()


def set_journal_aside(path: Path) -> Path:
    """Give a journal that is not to be used another name, which is returned; it must be closed.

    Its log goes first: SQLite would play that into whatever lies beside it.

    Raises:
        OSError: it cannot be renamed.
    """
    names = (path.with_name(f"{path.name}.before-{number}") for number in count(1))
    aside = next(name for name in names if not name.exists())
    for suffix in ("-wal", "-shm"):
        with suppress(FileNotFoundError):
            Path(f"{path}{suffix}").rename(f"{aside}{suffix}")
    path.rename(aside)
    sync_folder(path.parent)
    return aside


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
