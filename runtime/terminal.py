"""The only writer to stderr while a run goes on: log lines, and below them a picture of the run.

A terminal that stands still (Ctrl-S, a full pipe) holds up the one thread that writes, and nobody
else: lines are handed over without waiting, and dropped when too many wait. That thread writes past
sys.stderr, whose lock would be held at exit. The cursor is never hidden, so nothing has to be put
right again, however the process ends.
"""

from __future__ import annotations

import logging
import os
import queue
import re
import select
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from types import TracebackType
from typing import Protocol

logger = logging.getLogger(__name__)

STDERR = 2
LOOK_S = 0.5  # between two looks at the run, and two drawings
PLAIN_S = 5.0  # between two lines where nothing can be drawn
ASLEEP_S = 3.0  # a drawing that comes so late: we were stopped, and others have written since
MAX_WAITING_LINES = 1000  # some seconds of -vv
LAST_LINES_S = 1.0  # how long a terminal that stands still may hold up the end
USUAL_SIZE = (80, 24)  # of a terminal that does not tell

_UP, _CLEAR_LINE, _CLEAR_BELOW = "\r\x1b[{}A", "\x1b[2K", "\x1b[J"
_DUMB = ("", "dumb", "unknown")  # values of TERM: the cursor cannot be moved
_COLOURS = re.compile(r"\x1b\[[0-9;]*m")


class View(Protocol):
    """What the run looks like; called by the terminal's thread only."""

    def look(self) -> None:
        """Take notice of how the run stands now."""

    def picture(self, *, width: int, height: int) -> list[str]:
        """Return at most `height` lines of at most `width` columns; colours take none."""

    def line(self) -> str:
        """Return the run in one line."""


class Terminal:
    """Owns a descriptor of stderr and the thread that writes to it, until `close`."""

    def __init__(self) -> None:
        try:
            self._fd = os.dup(STDERR)
        except OSError:  # started without one
            self._fd = os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)
        self._can_draw = os.isatty(self._fd) and os.environ.get("TERM", "") not in _DUMB
        self._lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()  # None: the end
        self._num_dropped = 0
        self._view: View | None = None
        self._next_line = time.monotonic() + PLAIN_S
        self._is_given_up = False
        self._screen = _Screen(self._fd)
        # A daemon: one that hangs in a write must not keep the process.
        self._thread = threading.Thread(target=self._write_all, name="terminal", daemon=True)
        self._thread.start()

    def say(self, line: str) -> None:
        """Write a line some time soon; drop it if too many wait already. Never waits."""
        if self._lines.qsize() < MAX_WAITING_LINES:
            self._lines.put(line)
        else:
            self._num_dropped += 1

    def show(self, view: View) -> None:
        """Draw this below the lines from now on; where nothing can be drawn, tell of it."""
        self._view = view

    def close(self) -> None:
        """Write what waits, wipe the picture, and end. Waits at most `LAST_LINES_S`."""
        self._lines.put(None)
        self._thread.join(timeout=LAST_LINES_S)
        self._is_given_up = True  # whatever is written to stderr next is not to be wiped

    # --- the thread ---

    def _write_all(self) -> None:
        next_look = time.monotonic() + LOOK_S
        is_open = True
        while is_open and not self._is_given_up:
            lines, is_open = self._take_lines(next_look - time.monotonic())
            picture: list[str] | None = None if is_open else []
            if is_open and time.monotonic() >= next_look:
                next_look = time.monotonic() + LOOK_S
                picture = self._look(lines)
            with suppress(OSError):  # nobody reads any more
                self._screen.write(lines, picture)
        os.close(self._fd)

    def _look(self, lines: list[str]) -> list[str] | None:
        """Return what to draw; where nothing can be drawn, add to `lines` now and then."""
        if self._view is None:
            return None
        try:
            self._view.look()
            if self._can_draw:
                return self._picture(self._view)
            if time.monotonic() >= self._next_line:
                self._next_line = time.monotonic() + PLAIN_S
                lines.append(self._view.line())
        except Exception:  # the run and its log lines go on without
            logger.exception("the view of the run is broken")
            self._view = None
        return []

    def _take_lines(self, timeout_s: float) -> tuple[list[str], bool]:
        """Wait for a line; return all that have come, and whether more may."""
        lines: list[str] = []
        is_open = True
        with suppress(queue.Empty):
            line = self._lines.get(timeout=max(timeout_s, 0.0))
            while line is not None:
                lines.append(line)
                line = self._lines.get_nowait()
            is_open = False
        if self._num_dropped:
            lines.append(f"runpipe: {self._num_dropped} lines left out here; the log has them")
            self._num_dropped = 0
        return lines, is_open

    def _picture(self, view: View) -> list[str]:
        if not _is_foreground(self._fd):
            self._screen.forget()
            return []
        width, height = self._screen.size()
        return view.picture(width=width - 1, height=height - 1)  # the cursor is below it

    def __enter__(self) -> Terminal:
        """Return the terminal."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close it."""
        self.close()


class _Screen:
    """What has been written, so that the picture can be drawn again where it stands."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._picture: list[str] = []
        self._written = time.monotonic()

    def size(self) -> tuple[int, int]:
        """Return columns and rows, both of them enough to draw in."""
        try:
            width, height = os.get_terminal_size(self._fd)
        except OSError:
            width, height = 0, 0
        return (width or USUAL_SIZE[0], height or USUAL_SIZE[1])

    def forget(self) -> None:
        """Leave the picture where it is: others have written since."""
        self._picture = []

    def write(self, lines: Sequence[str], picture: list[str] | None) -> None:
        """Write lines where the picture stands, and the picture below; None: as it was."""
        if picture is None:
            if not lines:
                return
            picture = self._picture
        if self._picture and time.monotonic() > self._written + ASLEEP_S:
            self.forget()
        rows = self._rows()
        parts = [_UP.format(rows)] if rows else []
        if rows and lines:
            parts.append(_CLEAR_BELOW)
        parts += [f"{line}\n" for line in lines]
        parts += [f"{_CLEAR_LINE}{line}\n" for line in picture]
        if rows:
            parts.append(_CLEAR_BELOW)
        self._picture = picture
        _write_whole(self._fd, "".join(parts).encode(errors="backslashreplace"))
        self._written = time.monotonic()

    def _rows(self) -> int:
        """Return how many rows the picture takes by now: a narrower terminal has wrapped it."""
        width = self.size()[0] if self._picture else 1
        return sum(max(1, -(-len(_COLOURS.sub("", line)) // width)) for line in self._picture)


def _is_foreground(fd: int) -> bool:
    """Whether the terminal is ours to draw on, and not that of a shell which runs us beside it."""
    try:
        return os.tcgetpgrp(fd) == os.getpgrp()
    except OSError:  # it controls nobody
        return True


def _write_whole(fd: int, left: bytes) -> None:
    while left:
        try:
            left = left[os.write(fd, left) :]
        except BlockingIOError:  # whoever shares it has made it so
            writable = select.poll()
            writable.register(fd, select.POLLOUT)
            writable.poll()
