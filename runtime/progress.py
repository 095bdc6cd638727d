"""The progress line, drawn by a thread of its own: a stuck terminal must not stop the watch."""

from __future__ import annotations

import os
import sys
import threading
import time
from types import TracebackType

from runtime.tally import Tally

TERMINAL_S = 0.5  # between two drawings
LOG_S = 10.0  # between two lines where stderr is no terminal
STDERR = 2


class ProgressLine:
    """Draws the counts of a run to stderr until the with-block ends."""

    def __init__(self) -> None:
        self._on_terminal = sys.stderr.isatty()
        self._tally: Tally | None = None
        self._ended = threading.Event()
        # A daemon: one that hangs in a write to a stuck terminal must not keep the process.
        self._thread = threading.Thread(target=self._draw_all, name="progress", daemon=True)

    def show(self, tally: Tally) -> None:
        """Draw these counts from now on."""
        self._tally = tally

    def __enter__(self) -> ProgressLine:
        """Start to draw."""
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Wipe the line."""
        self._ended.set()
        self._thread.join(timeout=TERMINAL_S)

    def _draw_all(self) -> None:
        while not self._ended.wait(TERMINAL_S if self._on_terminal else LOG_S):
            if self._tally is not None:
                self._write(progress_text(self._tally))
        if self._on_terminal:
            os.write(STDERR, b"\r\x1b[K")

    def _write(self, text: str) -> None:
        line = f"\r{text}\x1b[K" if self._on_terminal else f"{text}\n"
        os.write(STDERR, line.encode())


def progress_text(tally: Tally) -> str:
    """Return "12/59 frame pairs, 3.4 a second, 14 s left"."""
    if not tally.num_items:
        return "starting workers and loading weights"
    text = f"{tally.units_done}/{tally.num_units} {tally.unit}"
    seconds = time.monotonic() - tally.began
    if not tally.units_done:
        return text
    rate = tally.units_done / seconds
    return f"{text}, {rate:.1f} a second, {(tally.num_units - tally.units_done) / rate:.0f} s left"
