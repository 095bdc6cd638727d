"""What reaches a terminal, as a person would see it, and that a stuck one holds up nobody."""

import os
import re
import select
import termios
import threading
from contextlib import contextmanager, suppress

import pytest

from runtime import terminal as module
from runtime.terminal import MAX_WAITING_LINES, Terminal
from tests.screen import Screen, open_pty, resize

END = "\x04"  # what nobody draws


class Counting:
    """A view whose picture says how often it was looked at, and how large it may be."""

    def __init__(self, *, num_lines=2, breaks_at=-1):
        self.looks = 0
        self._num_lines, self._breaks_at = num_lines, breaks_at

    def look(self):
        self.looks += 1
        if self.looks == self._breaks_at:
            raise ValueError("broken")

    def picture(self, *, width, height):
        text = f"look {self.looks} of {width}x{height} "
        lines = [f"{text}{'.' * width}"[:width] for _ in range(self._num_lines)]
        return [f"\x1b[1m{line}\x1b[0m" for line in lines][:height]

    def line(self):
        return f"looked {self.looks} times"


class Reader(threading.Thread):
    """Reads what a terminal gets, and shows it."""

    def __init__(self, fd, screen):
        super().__init__(name="reader", daemon=True)
        self._fd, self.screen = fd, screen
        self.texts = []
        self._changed = threading.Condition()
        self.start()

    def run(self):
        is_end = False
        while not is_end:
            text, is_end, _ = os.read(self._fd, 65536).decode().partition(END)
            with self._changed:
                self.texts.append(text)
                self.screen.feed(text)
                self._changed.notify_all()

    def end(self, theirs):
        """Read to the end, which this writes."""
        os.write(theirs, END.encode())
        self.join(10)

    def wait_until(self, is_so):
        with self._changed:
            assert self._changed.wait_for(lambda: is_so(self.screen.lines), 10), self.screen.lines


@contextmanager
def terminal_at(fd, monkeypatch, *, look_s=0.02, name="xterm"):
    """Yield a terminal that writes to `fd`."""
    monkeypatch.setattr(module, "STDERR", fd)
    monkeypatch.setattr(module, "LOOK_S", look_s)
    monkeypatch.setenv("TERM", name)
    with Terminal() as terminal:
        yield terminal


@contextmanager
def reading(monkeypatch, *, width=40, height=10, **options):
    """Yield a terminal on a pseudo-terminal, who reads it, and its far end."""
    with open_pty(width, height) as (ours, theirs):
        reader = Reader(ours, Screen(width, height))
        try:
            with terminal_at(theirs, monkeypatch, **options) as terminal:
                yield terminal, reader, theirs
        finally:
            reader.end(theirs)


def test_the_picture_is_drawn_in_its_place_and_wiped(monkeypatch):
    with reading(monkeypatch) as (terminal, reader, _theirs):
        terminal.show(Counting())
        reader.wait_until(lambda lines: lines[0].startswith("look 3 of 39x9 ..."))
        assert len(reader.screen.lines) == 2
        assert reader.screen.row == 2
    assert reader.screen.lines == [""]
    assert (reader.screen.row, reader.screen.column) == (0, 0)
    assert "\x1b[?25l" not in "".join(reader.texts)


def test_lines_stand_above_the_picture_and_stay(monkeypatch):
    long = "runpipe: warning: " + "x" * 70
    with reading(monkeypatch) as (terminal, reader, _theirs):
        terminal.show(Counting())
        reader.wait_until(lambda lines: lines[0].startswith("look 2"))
        terminal.say("runpipe: warning: one")
        reader.wait_until(lambda lines: lines[0].endswith("one") and len(lines) == 3)
        terminal.say(long)
        reader.wait_until(lambda lines: len(lines) == 6 and lines[4].startswith("look"))
        terminal.say("last")
    assert reader.screen.lines == [
        "runpipe: warning: one",
        long[:40],
        long[40:80],
        long[80:],
        "last",
    ]


def test_a_line_does_not_have_the_picture_made_again(monkeypatch):
    view = Counting()
    with reading(monkeypatch, look_s=0.3) as (terminal, reader, _theirs):
        terminal.show(view)
        reader.wait_until(lambda lines: lines[0].startswith("look 1"))
        for number in range(20):
            terminal.say(f"{number}")
            reader.wait_until(lambda lines, n=number: str(n) in lines)
            assert reader.screen.lines[-1].startswith("look"), "it stays where it is"
        assert view.looks < 10


def test_a_narrower_terminal_is_not_smeared(monkeypatch):
    with reading(monkeypatch) as (terminal, reader, theirs):
        terminal.say("above")
        terminal.show(Counting())
        reader.wait_until(lambda lines: "of 39x9" in lines[-1])
        rows = reader.screen.rows  # a line of 39 columns wraps into two rows where there are 20
        with reader._changed:
            resize(theirs, 20, 8)
            reader.screen.rows = [
                rows[0],
                *(r[a:b] for r in rows[1:3] for a, b in ((0, 20), (20, 40))),
                "",
            ]
            reader.screen.row, reader.screen.width = 5, 20
        reader.wait_until(lambda lines: "of 19x7" in lines[-1])
        assert [line.split(" of")[0].split()[0] for line in reader.screen.lines] == [
            "above",
            "look",
            "look",
        ]
    assert reader.screen.lines == ["above"]


def test_a_terminal_that_does_not_tell_its_size_is_a_usual_one(monkeypatch):
    with reading(monkeypatch, width=0, height=0) as (terminal, reader, _theirs):
        reader.screen.width = 80
        terminal.show(Counting())
        reader.wait_until(lambda lines: "of 79x23" in lines[0])


@pytest.mark.parametrize("name", ["dumb", "unknown", ""])
def test_where_the_cursor_cannot_move_plain_lines_are_told(monkeypatch, name):
    monkeypatch.setattr(module, "PLAIN_S", 0.05)
    with reading(monkeypatch, name=name) as (terminal, reader, _theirs):
        terminal.show(Counting())
        reader.wait_until(lambda lines: len(lines) >= 2)
    assert all(re.fullmatch(r"looked \d+ times", line) for line in reader.screen.lines)
    assert "\x1b" not in "".join(reader.texts)


def test_a_view_that_breaks_is_told_of_and_lines_still_come(monkeypatch, caplog):
    with reading(monkeypatch) as (terminal, reader, _theirs):
        terminal.show(Counting(breaks_at=3))
        reader.wait_until(lambda lines: lines == [""] and len(reader.texts) > 2)
        terminal.say("still here")
    assert reader.screen.lines == ["still here"]
    assert "the view of the run is broken" in caplog.text
    assert "ValueError: broken" in caplog.text


def test_a_pipe_gets_a_line_every_few_seconds_and_nothing_to_draw(monkeypatch):
    monkeypatch.setattr(module, "PLAIN_S", 0.1)
    read, write = os.pipe()
    with terminal_at(write, monkeypatch) as terminal, os.fdopen(read) as lines:
        os.close(write)
        terminal.say("first")
        terminal.show(Counting())
        assert lines.readline() == "first\n"
        assert re.fullmatch(r"looked \d+ times\n", lines.readline())
        assert re.fullmatch(r"looked \d+ times\n", lines.readline())


def test_without_a_stderr_nothing_happens(monkeypatch):
    read, write = os.pipe()
    os.close(read)
    os.close(write)
    with terminal_at(write, monkeypatch) as terminal:
        terminal.say("to nobody")


def test_a_reader_that_is_gone_is_no_error(monkeypatch):
    read, write = os.pipe()
    with terminal_at(write, monkeypatch) as terminal:
        os.close(write)
        os.close(read)
        terminal.say("to nobody")


def test_a_descriptor_that_does_not_block_is_waited_for(monkeypatch):
    read, write = os.pipe()
    os.set_blocking(write, False)
    with suppress(BlockingIOError):
        while True:
            os.write(write, b"." * 4095 + b"\n")
    is_full, poll = threading.Event(), select.poll
    monkeypatch.setattr(select, "poll", lambda: is_full.set() or poll())
    with terminal_at(write, monkeypatch) as terminal, os.fdopen(read) as lines:
        os.close(write)
        terminal.say("after a while")
        assert is_full.wait(10)
        while (line := lines.readline()) != "after a while\n":
            assert line.startswith("....")


def test_what_a_stuck_terminal_missed_is_counted_when_it_goes_on(monkeypatch):
    with open_pty() as (ours, theirs):
        termios.tcflow(theirs, termios.TCOOFF)
        with terminal_at(theirs, monkeypatch) as terminal:
            terminal.show(Counting())
            for number in range(MAX_WAITING_LINES + 300):
                terminal.say(f"line {number}")
            termios.tcflow(theirs, termios.TCOON)
            reader = Reader(ours, Screen(80, 24))
            reader.wait_until(lambda lines: any("left out" in line for line in lines))
        reader.end(theirs)
    left_out = [line for line in reader.screen.lines if "left out" in line]
    number = int(
        re.fullmatch(r"runpipe: (\d+) lines left out here; the log has them", left_out[0])[1]
    )
    told = [line for line in reader.screen.lines if re.fullmatch(r"line \d+", line)]
    assert len(told) + number == MAX_WAITING_LINES + 300
    assert 200 <= number <= 300
