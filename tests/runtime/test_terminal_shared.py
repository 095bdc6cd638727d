"""A terminal that others write to as well, or that stood still until the end."""

import os
import subprocess
import sys
import termios
import time

from runtime.terminal import LAST_LINES_S
from tests.screen import Screen, open_pty

BESIDE = """
import fcntl, os, subprocess, sys, termios, threading
from runtime.terminal import Terminal
looked = threading.Semaphore(0)

class View:
    def look(self): looked.release()
    def picture(self, *, width, height): return ["picture"]

fcntl.ioctl(2, termios.TIOCSCTTY, 0)
with Terminal() as terminal:
    terminal.show(View())
    sys.stdin.readline()
    shell = subprocess.Popen(["cat"], process_group=0, stdin=subprocess.PIPE)
    os.tcsetpgrp(2, shell.pid)
    while looked.acquire(blocking=False): pass
    looked.acquire()
    looked.acquire()
    terminal.say("a line")
shell.communicate()
os.write(2, b"the end\\n")
"""


def test_beside_a_shell_nothing_is_drawn(project):
    """`runpipe ... &`: the picture would go over what is typed; what was drawn before stays."""
    screen = Screen(80, 24)
    with open_pty() as (ours, theirs):
        streams = {"stdin": subprocess.PIPE, "stdout": subprocess.DEVNULL, "stderr": theirs}
        environment = {**os.environ, "TERM": "xterm"}
        command = [sys.executable, "-c", BESIDE]
        with subprocess.Popen(
            command, cwd=project, env=environment, start_new_session=True, **streams
        ) as process:
            while "picture" not in screen.lines:
                screen.feed(os.read(ours, 4096).decode())
            process.communicate(b"\n", timeout=30)
        while "the end" not in screen.lines:
            screen.feed(os.read(ours, 4096).decode())
    assert screen.lines == ["picture", "a line", "the end"]


GIVEN_UP = """
import os, sys, termios, threading
from runtime.terminal import Terminal

is_drawn = threading.Event()

class View:
    def look(self): pass
    def picture(self, *, width, height):
        is_drawn.set()
        return ["picture"]

terminal = Terminal()
terminal.show(View())
sys.stdin.readline()
termios.tcflow(2, termios.TCOOFF)
is_drawn.clear()
is_drawn.wait()
terminal.say("too late")
terminal.close()
print("closed", flush=True)
sys.stdin.readline()
for thread in threading.enumerate():
    if thread.name == "terminal":
        thread.join(10)
os.write(2, b"the end\\n")
"""


def test_what_comes_after_a_terminal_stood_still_to_the_end_is_not_wiped(project):
    screen = Screen(80, 24)
    with open_pty() as (ours, theirs):
        streams = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": theirs}
        environment = {**os.environ, "TERM": "xterm"}
        command = [sys.executable, "-c", GIVEN_UP]
        with subprocess.Popen(command, cwd=project, env=environment, **streams) as process:
            while "picture" not in screen.lines:
                screen.feed(os.read(ours, 4096).decode())
            started = time.monotonic()
            process.stdin.write(b"\n")
            process.stdin.flush()
            assert process.stdout.readline() == b"closed\n"
            assert time.monotonic() - started < LAST_LINES_S + 5
            termios.tcflow(theirs, termios.TCOON)
            process.stdin.close()
            assert process.wait(20) == 0
        while "the end" not in screen.lines:
            screen.feed(os.read(ours, 4096).decode())
    assert screen.lines == ["picture", "the end"]
