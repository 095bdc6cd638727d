"""Where log lines go. The only place that sets handlers.

Messages are written `%`-style with `key=value` in them; this adds time, level and place.
"""

from __future__ import annotations

import logging
import os
import queue
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

OURS = ("ipc", "stages", "runtime")
STDERR_LEVELS = (logging.WARNING, logging.INFO, logging.DEBUG)  # by the number of -v
FILE_LEVELS = (logging.INFO, logging.INFO, logging.DEBUG)
STDERR = 2
MAX_WAITING_LINES = 1000  # some seconds of -vv
LAST_LINES_S = 1.0  # how long a terminal that stands still may hold up the end


class _FileFormatter(logging.Formatter):
    """One line each: UTC, so that the files of one run can be merged by sorting."""

    def __init__(self, process: str) -> None:
        super().__init__(f"%(asctime)s %(levelname)s {process} %(name)s %(message)s")

    def formatTime(self, record: logging.LogRecord, datefmt: str | None = None) -> str:
        return datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")


class _HumanFormatter(logging.Formatter):
    """No time and no place: a person is reading along. Tracebacks are in the file."""

    def format(self, record: logging.LogRecord) -> str:
        return f"runpipe: {record.levelname.lower()}: {record.getMessage()}"


class _StderrHandler(logging.Handler):
    """Writes from a thread of its own and drops what does not fit.

    A terminal that stands still (Ctrl-S, a full pipe) must not stop the supervisor's watch.
    """

    def __init__(self) -> None:
        super().__init__()
        self._lines: queue.Queue[str | None] = queue.Queue(MAX_WAITING_LINES)
        self._thread = threading.Thread(target=self._write_all, name="stderr", daemon=True)
        self._thread.start()

    def emit(self, record: logging.LogRecord) -> None:
        with suppress(queue.Full):  # the log file has it
            self._lines.put_nowait(self.format(record))

    def close(self) -> None:
        with suppress(queue.Full):
            self._lines.put(None, timeout=LAST_LINES_S)
            self._thread.join(timeout=LAST_LINES_S)
        super().close()

    def _write_all(self) -> None:
        while (line := self._lines.get()) is not None:
            left = f"{line}\n".encode(errors="backslashreplace")
            with suppress(OSError):  # nobody reads any more
                while left:  # past sys.stderr, whose lock would be held at exit
                    left = left[os.write(STDERR, left) :]


@contextmanager
def supervisor_logs(run_dir: Path, *, verbosity: int = 0) -> Iterator[Path]:
    """Log to stderr and to a file of `run_dir` until the block ends; yield the file's path.

    Args:
        run_dir: gets a folder `logs/`.
        verbosity: 0 warns on stderr, 1 tells of the run's life, 2 of each item (also in the file).
    """
    path = log_path(run_dir, "supervisor")
    chosen = min(verbosity, len(STDERR_LEVELS) - 1)
    to_stderr, to_file = _StderrHandler(), logging.FileHandler(path, encoding="utf-8")
    to_stderr.setLevel(STDERR_LEVELS[chosen])
    to_stderr.setFormatter(_HumanFormatter())
    to_file.setLevel(FILE_LEVELS[chosen])
    to_file.setFormatter(_FileFormatter("supervisor"))
    with _handlers(to_stderr, to_file):
        yield path


@contextmanager
def worker_logs(worker: str, *, verbosity: int = 0) -> Iterator[None]:
    """Log to stderr until the block ends; the supervisor made that the worker's log file.

    Args:
        worker: "denoise/0".
        verbosity: as in `supervisor_logs`; 2 tells of each item.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setLevel(FILE_LEVELS[min(verbosity, len(FILE_LEVELS) - 1)])
    handler.setFormatter(_FileFormatter(worker))
    with _handlers(handler):
        yield


def log_path(run_dir: Path, process: str) -> Path:
    """Return where `process` ("supervisor", "encode+decode/0") logs, and make the folder.

    Open it for appending: all incarnations of a worker write to one file.
    """
    folder = run_dir / "logs"
    folder.mkdir(parents=True, exist_ok=True)
    return folder / f"{process.replace('/', '.')}.log"


@contextmanager
def _handlers(*handlers: logging.Handler) -> Iterator[None]:
    root, ours = logging.getLogger(), [logging.getLogger(name) for name in OURS]
    before = [logger.level for logger in ours]
    for logger in ours:  # and not the root: libraries would tell of their own life too
        logger.setLevel(min(handler.level for handler in handlers))
    for handler in handlers:
        root.addHandler(handler)
    logging.captureWarnings(True)
    try:
        yield
    finally:
        logging.captureWarnings(False)
        for logger, level in zip(ours, before, strict=True):
            logger.setLevel(level)
        for handler in handlers:
            root.removeHandler(handler)
            handler.close()
