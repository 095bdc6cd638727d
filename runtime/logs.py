"""Where log lines go. The only place that sets handlers.

Messages are written `%`-style with `key=value` in them; this adds time, level and place.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path

from runtime.terminal import Terminal

OURS = ("ipc", "stages", "runtime")
STDERR_LEVELS = (logging.WARNING, logging.INFO, logging.DEBUG)  # by the number of -v
FILE_LEVELS = (logging.INFO, logging.INFO, logging.DEBUG)


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


class _TerminalHandler(logging.Handler):
    """Hands lines over without waiting: a terminal that stands still must stop no watch."""

    def __init__(self, terminal: Terminal) -> None:
        super().__init__()
        self._terminal = terminal

    def emit(self, record: logging.LogRecord) -> None:
        self._terminal.say(self.format(record))


class _LogFile(logging.FileHandler):
    """The file; where the disk is full, that is said once, and the run goes on without."""

    def __init__(self, path: Path, terminal: Terminal) -> None:
        super().__init__(path, encoding="utf-8")
        self._terminal, self._is_broken = terminal, False

    def handleError(self, record: logging.LogRecord) -> None:
        error = sys.exc_info()[1]
        if isinstance(error, OSError):
            self._say(error)
        else:
            super().handleError(record)

    def _say(self, error: OSError) -> None:
        if not self._is_broken:
            self._is_broken = True
            path = self.baseFilename
            self._terminal.say(f"runpipe: warning: {path}: cannot be written: {error.strerror}")

    def close(self) -> None:
        try:
            super().close()  # which closes it in any case
        except OSError as error:  # lines that have waited for space
            self._say(error)


@contextmanager
def supervisor_logs(
    run_dir: Path, *, verbosity: int = 0, terminal: Terminal | None = None
) -> Iterator[Path]:
    """Log to stderr and to a file of `run_dir` until the block ends; yield the file's path.

    Args:
        run_dir: gets a folder `logs/`.
        verbosity: 0 warns on stderr, 1 tells of the run's life, 2 of each item (also in the file).
        terminal: who writes to stderr, if there is somebody already.
    """
    path = log_path(run_dir, "supervisor")
    chosen = min(verbosity, len(STDERR_LEVELS) - 1)
    with ExitStack() as stack:
        terminal = terminal or stack.enter_context(Terminal())
        to_file = _LogFile(path, terminal)
        to_file.setLevel(FILE_LEVELS[chosen])
        to_file.setFormatter(_FileFormatter("supervisor"))
        to_stderr = _TerminalHandler(terminal)
        to_stderr.setLevel(STDERR_LEVELS[chosen])
        to_stderr.setFormatter(_HumanFormatter())
        stack.enter_context(_handlers(to_stderr, to_file))
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
    """Return where `process` ("supervisor", "encode+decode/0") logs, and make folder and file.

    Open it for appending: all incarnations of a worker write to one file.
    """
    folder = run_dir / "logs"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    path = folder / f"{process.replace('/', '.')}.log"
    path.touch(mode=0o644)  # whatever the umask is: nobody else may write into a run
    return path


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
