"""A terminal for tests: shows what a person would see, and ends with the process that writes."""

import fcntl
import os
import re
import struct
import termios
from contextlib import contextmanager

_TOKEN = re.compile(r"\x1b\[(\d*)([AJKm])|\x1b\[([\d;]*m|\?\d+[hl])|([\r\n])|([^\x1b])", re.DOTALL)


class Screen:
    """As much of a terminal as is used here; anything else is an error."""

    def __init__(self, width, height):
        self.width, self.height = width, height
        self.rows, self.row, self.column = [""], 0, 0
        self.is_cursor_hidden = False

    def feed(self, text):
        at = 0
        while at < len(text):
            found = _TOKEN.match(text, at)
            assert found, f"unknown to this terminal: {text[at : at + 20]!r}"
            at = found.end()
            self._do(*found.groups())

    def _do(self, number, command, setting, motion, letter):
        if command == "A":
            assert self.row >= int(number), "above the first row"
            self.row -= int(number)
        elif command == "J":
            assert number == ""
            self.rows[self.row :] = [self.rows[self.row][: self.column]]
        elif command == "K":
            assert number == "2"
            self.rows[self.row] = ""
        elif setting and setting.startswith("?25"):
            self.is_cursor_hidden = setting.endswith("l")
        elif motion == "\r":
            self.column = 0
        elif motion == "\n":
            self._down()
        elif letter:
            self._put(letter)

    def _put(self, letter):
        if self.column == self.width:
            self._down()
            self.column = 0
        row = self.rows[self.row].ljust(self.column)
        self.rows[self.row] = row[: self.column] + letter + row[self.column + 1 :]
        self.column += 1

    def _down(self):
        self.row += 1
        if self.row == len(self.rows):
            self.rows.append("")

    @property
    def lines(self):
        """What is visible, and what has scrolled out, without what is empty at the end."""
        return [row.rstrip() for row in "\n".join(self.rows).rstrip().split("\n")]


@contextmanager
def open_pty(width=80, height=24):
    """Open a pseudo-terminal; yield its two ends, ours and that of who writes."""
    ours, theirs = os.openpty()
    resize(theirs, width, height)
    try:
        yield ours, theirs
    finally:
        os.close(ours)
        os.close(theirs)


def resize(fd, width, height):
    fcntl.ioctl(fd, termios.TIOCSWINSZ, struct.pack("HHHH", height, width, 0, 0))


def read_all(ours):
    """Yield what is written, until nobody has the other end any more."""
    while True:
        try:
            text = os.read(ours, 65536)
        except OSError:  # EIO: closed
            return
        yield text.decode()
