"""The processes at the ends of links, as the doctor sees them: started, asked, ended in time."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping
from multiprocessing.connection import wait

from runtime.errors import describe_exit
from runtime.host import Gpu
from runtime.link_messages import Answer, Command, Failed, answer_of, line_of
from runtime.process import PROJECT, THREAD_VARIABLES

PARTNER_S = 1.0  # how long an end may go on without the other one
STOP_S = 3.0  # for all of them to give the GPUs back
KILL_S = 3.0  # a process inside a driver that hangs does not even end by SIGKILL
READ_BYTES = 65536
LAST_BYTES = 2000  # of what a process wrote before it ended


class EndProcess:
    """A process that sees one GPU, as a worker does. Not waited for but in `ask` and `end_all`."""

    def __init__(self, name: str, gpu: Gpu, endpoint: str) -> None:
        """Start it: exec, not fork, and in a session of its own.

        Raises:
            OSError: the host refuses another process.
        """
        self.gpu, self.endpoint = gpu, endpoint
        self.is_lost = False  # of no use any more
        self._is_busy = False  # it was asked, and has not answered
        self._unread = b""
        self._words = tempfile.TemporaryFile()  # noqa: SIM115
        command = [sys.executable, "-P", "-m", "runtime.link_end", "--name", name]
        command += ["--endpoint", endpoint, "--parent-pid", str(os.getpid())]
        try:
            self._process = subprocess.Popen(
                command,
                bufsize=0,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._words,
                env=_environment(gpu),
                start_new_session=True,  # Ctrl-C in the terminal is for the doctor alone
            )
        except OSError:
            self._words.close()
            raise
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._stdin, self._stdout = self._process.stdin, self._process.stdout
        os.set_blocking(self._stdout.fileno(), False)

    def fileno(self) -> int:
        """Return what becomes readable when there is an answer, or will be none."""
        return self._stdout.fileno()

    def tell(self, command: Command) -> None:
        """Say what to do; one that is dead is found out by `read`."""
        self._is_busy = True
        try:
            self._stdin.write(line_of(command))
        except BrokenPipeError:
            return

    def read(self) -> Answer | None:
        """Return the answer if it is whole. A death is one too."""
        data = self._stdout.read(READ_BYTES)
        if data is None:
            return None
        self._unread += data
        if b"\n" in self._unread:
            line, self._unread = self._unread.split(b"\n", 1)
            answer = answer_of(line)
        elif data:
            return None
        else:
            answer = Failed(error=self._how_it_ended(), is_lost=True)
        self._is_busy = False
        self.is_lost = isinstance(answer, Failed) and answer.is_lost
        return answer

    def give_up(self, waited_s: float) -> Failed:
        """Kill it, since it does not answer."""
        self._process.kill()
        self.is_lost = True
        return Failed(error=f"no answer for {waited_s:g} s", is_lost=True)

    def _how_it_ended(self) -> str:
        how = describe_exit(self._process.wait()) if self._ends_by(KILL_S) else "closed its answers"
        size = self._words.seek(0, os.SEEK_END)
        self._words.seek(max(0, size - LAST_BYTES))
        words = self._words.read().decode(errors="replace").strip().splitlines()
        return f"{how}: {words[-1]}" if words else how

    def _ends_by(self, timeout_s: float) -> bool:
        try:
            self._process.wait(max(0.0, timeout_s))
        except subprocess.TimeoutExpired:
            return False
        return True

    def ask_to_stop(self) -> None:
        """Let it give everything back and exit."""
        self._stdin.close()

    def stop(self, deadline: float) -> None:
        """End it and reap it: by SIGKILL if it is busy, or has not ended by `deadline`."""
        is_idle = not (self.is_lost or self._is_busy)
        if not is_idle or not self._ends_by(deadline - time.monotonic()):
            self._process.kill()
            self._ends_by(KILL_S)
        self._stdout.close()
        self._words.close()


def ask(
    questions: Mapping[EndProcess, Command], *, timeout_s: float, are_partners: bool = False
) -> dict[EndProcess, Answer]:
    """Ask all at once, and return their answers in the order in which they came.

    Args:
        questions: what to tell whom.
        timeout_s: until when an end that has not answered is killed, which is its answer.
        are_partners: if one fails, the others wait in vain.
    """
    answers: dict[EndProcess, Answer] = {}
    began = time.monotonic()
    for end, command in questions.items():
        end.tell(command)
    while waiting := [end for end in questions if end not in answers]:
        left_s = max(0.0, began + timeout_s - time.monotonic())
        ready = wait([end.fileno() for end in waiting], left_s)
        if not ready:
            for end in waiting:
                answers[end] = end.give_up(timeout_s)
        for end in waiting:
            if end.fileno() in ready and (answer := end.read()) is not None:
                answers[end] = answer
                if are_partners and isinstance(answer, Failed):
                    timeout_s = min(timeout_s, time.monotonic() - began + PARTNER_S)
    return answers


def end_all(ends: Iterable[EndProcess]) -> None:
    """End processes, all at the same time."""
    ending = list(ends)
    for end in ending:
        end.ask_to_stop()
    deadline = time.monotonic() + STOP_S
    for end in ending:
        end.stop(deadline)


def _environment(gpu: Gpu) -> dict[str, str]:
    python_path = os.pathsep.join(filter(None, [str(PROJECT), os.environ.get("PYTHONPATH", "")]))
    return {
        **os.environ,
        **dict.fromkeys(THREAD_VARIABLES, "1"),
        "PYTHONPATH": python_path,
        "CUDA_DEVICE_ORDER": "PCI_BUS_ID",
        "CUDA_VISIBLE_DEVICES": gpu.uuid,
    }
