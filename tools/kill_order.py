"""What one cell of the kill matrix orders, and how a stage carries it out: once, at its moment.

A worker finds its order in the file that the environment variable `VARIABLE` names, and all that is
to happen only once leaves a file beside it. Nothing of this is known to runtime/.
"""

from __future__ import annotations

import ctypes
import os
import select
import signal
from contextlib import suppress
from pathlib import Path
from types import FrameType

import msgspec

VARIABLE = "RUNPIPE_KILL_ORDER"
SUPERVISOR = "supervisor"
STRUCK = "struck"  # the file that says that it has happened; its time is when
EXIT_CODE = 7
GONE_S = 10.0  # how long a process may take to end by a signal
# Who acts when the supervisor is the victim, as it has no stage.
ACTORS = {"first": "read", "middle": "decode", "interrupted": "decode", "last": "write"}


class Order(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is to happen. Moments and ways are those of tools/kill_cells.py."""

    victim: str = ""  # "read", ..., "write", "supervisor"; "": nobody
    way: str = ""  # "SIGKILL", "SIGSEGV", "SIGSTOP", "SIGTERM", "exit", "run"; "": none
    moment: str = ""  # "first", "middle", "interrupted", "last", "draining", "joined"
    middle: int = 0  # the item in the middle
    last: int = 0  # the last item
    load_raises: int = 0  # so many times
    load_raises_at: str = ""  # "start", "restart"


class OrderedError(RuntimeError):
    """A failure that was ordered."""


class Killer:
    """One stage's part in an order; it does nothing unless it is the one to act."""

    def __init__(self, stage: str) -> None:
        """Say which process runs the stage, and listen for an `exit` that another one orders."""
        path = Path(os.environ[VARIABLE])
        self._stage, self._folder = stage, path.parent
        self._order = msgspec.json.decode(path.read_bytes(), type=Order)
        (self._folder / f"pid.{stage}").write_text(str(os.getpid()))
        if self._order.victim == stage and self._order.way == "exit":
            signal.signal(signal.SIGUSR1, _exit)

    def load(self) -> None:
        """The stage is about to load, or to open its file."""
        order = self._order
        if order.victim != self._stage or not order.load_raises:
            return
        if order.load_raises_at == "restart" and not (self._folder / STRUCK).exists():
            return
        for number in range(order.load_raises):
            if self._once(f"load.{number}"):
                raise OrderedError(f"{self._stage} cannot load, as ordered")

    def before(self, item: int) -> None:
        """The stage is about to run an item; a sink also sees to victims that have run theirs."""
        order = self._order
        if item == 0:
            self._act("first")
            if self._stage == "read" and order.moment == "interrupted" and self._once("interrupt"):
                os.kill(os.getppid(), signal.SIGINT)
        if item == order.last:
            self._act("last")
            if self._stage == "write" and order.victim not in ("write", SUPERVISOR):
                self._act("draining")

    def after(self, item: int) -> None:
        """The stage has run an item, and nobody knows yet."""
        if item == self._order.middle:
            self._act("middle")
            self._act("interrupted")
        if item == self._order.last and self._order.way == "run":
            self._act("draining")

    def join(self) -> None:
        """The sink is about to join the output."""
        self._act("draining")

    def joined(self) -> None:
        """The output is there, and nobody knows yet."""
        self._act("joined")

    def _act(self, moment: str) -> None:
        if moment == self._order.moment and self._is_mine(moment) and self._once(STRUCK):
            self._strike()

    def _is_mine(self, moment: str) -> bool:
        order = self._order
        if order.victim == SUPERVISOR:
            return self._stage == ACTORS.get(moment, "write")
        if moment == "draining" and order.way != "run":
            return self._stage == "write"
        return self._stage == order.victim

    def _once(self, name: str) -> bool:
        try:
            os.close(os.open(self._folder / name, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
        except FileExistsError:
            return False
        return True

    def _strike(self) -> None:
        order = self._order
        if order.way == "run":
            raise OrderedError(f"{self._stage} cannot run, as ordered")
        if order.victim == SUPERVISOR:
            os.kill(os.getppid(), signal.Signals[order.way])
        elif order.victim == self._stage:
            self._die()
        else:
            self._kill(int((self._folder / f"pid.{order.victim}").read_text()))

    def _die(self) -> None:
        if self._order.way == "exit":
            os._exit(EXIT_CODE)
        if self._order.way == "SIGSEGV":
            ctypes.string_at(0)
        os.kill(os.getpid(), signal.Signals[self._order.way])

    def _kill(self, pid: int) -> None:
        """Have another worker end, and wait until it has; a stopped one is not waited for."""
        way = self._order.way
        descriptor = os.pidfd_open(pid)
        try:
            os.kill(pid, signal.SIGUSR1 if way == "exit" else signal.Signals[way])
            if way != "SIGSTOP":
                with suppress(InterruptedError):
                    select.select([descriptor], [], [], GONE_S)
        finally:
            os.close(descriptor)


def _exit(_signum: int, _frame: FrameType | None) -> None:
    os._exit(EXIT_CODE)
