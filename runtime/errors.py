"""Every exception that runtime/ raises.

RunpipeError
 |- ConfigError      the user's mistake: where, what, and what to write instead (exit code 2)
 |   `- PlanError    a configuration that is well written but cannot work on this host
 |- JournalError     the journal of a run cannot be used, or another run is using it
 |   `- JournalDamaged   it cannot be trusted
 |       `- JournalEmpty     it says nothing at all, as that of a run that ended before it began
 |- WorkerDied       a worker ended without being asked to
 |- WorkerHung       a worker lives, but no longer gets on
 |- StageFailed      a stage raised; its worker is healthy
 |- RunIncomplete    the run went to its end, but not all of it could be done
 `- RunInterrupted   the user asked to stop; what is durable stays, the run can be resumed

KeyboardInterrupt
 `- Terminated       SIGTERM, unwound as Ctrl-C is

This module must know nothing but text and numbers: everyone may import it.
"""

from __future__ import annotations

import signal

MAX_ERROR_CHARS = 2000  # of what an exception says: some quote a whole tensor
MAX_TRACEBACK_CHARS = 32_000


class RunpipeError(Exception):
    """Base class; the command line turns it into one line and an exit code."""


class ConfigError(RunpipeError, ValueError):
    """The configuration cannot work; the message says where, and what to write instead."""

    def __init__(self, message: str) -> None:
        super().__init__(one_line(message))


class PlanError(ConfigError):
    """The pipeline cannot work on this host; the message has the numbers."""


class JournalError(RunpipeError):
    """A journal is damaged, is none, or is in use; the message names the file."""

    def __init__(self, message: str) -> None:
        super().__init__(one_line(message))


class JournalDamaged(JournalError):
    """What is in the file is not what a run wrote."""


class JournalEmpty(JournalDamaged):
    """Nothing is in the file: its run ended before it began, or somebody emptied it."""


class WorkerDied(RunpipeError):
    """A worker process ended without being asked to.

    Args:
        worker: "denoise/0".
        how: exit code, or minus the number of the signal that killed it, as `Popen.returncode`.
        log: the file that has its last words.
    """

    def __init__(self, worker: str, how: int, log: str = "") -> None:
        self.worker, self.how, self.log = worker, how, log
        see = f"; see {log}" if log else ""
        super().__init__(f"worker {worker} died ({describe_exit(how)}){see}")


class WorkerHung(RunpipeError):
    """A worker neither ended nor got on for longer than its limit.

    Args:
        worker: "denoise/0".
        what: what was missing: "no heartbeat" or "no progress with item 3".
        waited_s: for how long.
    """

    def __init__(self, worker: str, what: str, *, waited_s: float) -> None:
        self.worker, self.what, self.waited_s = worker, what, waited_s
        super().__init__(f"worker {worker} hung ({what} for {waited_s:.1f} s)")


class StageFailed(RunpipeError):
    """A stage raised, in `load`, `prepare` or (then `item` is a number) for one item.

    Args:
        worker: "encode+decode/0".
        stage: "decode".
        item: the item that failed, if it was one.
        error: "ValueError: frame pair has 3 frames".
        traceback: of the worker, for the log and the report.
    """

    def __init__(
        self, worker: str, stage: str, item: int | None, error: str, traceback: str = ""
    ) -> None:
        self.worker, self.stage, self.item = worker, stage, item
        self.error, self.traceback = error, traceback
        at = "" if item is None else f" on item {item}"
        super().__init__(f"stage {stage} failed in worker {worker}{at}: {error}")


class RunIncomplete(RunpipeError):
    """The run went to its end, but items failed, or the input was not whole.

    The output has what could be done, the report the rest; the workers are well.
    """


class RunInterrupted(RunpipeError):
    """The user ended the run before it was done.

    Args:
        signum: SIGINT or SIGTERM; the exit code is 128 + this.
    """

    def __init__(self, signum: int, *, num_done: int, num_items: int) -> None:
        self.signum, self.num_done, self.num_items = signum, num_done, num_items
        when = f"after {num_done} of {num_items} items" if num_items else "before any item began"
        super().__init__(f"interrupted by {_signal_name(signum)} {when}")


def bounded(text: str, max_chars: int) -> str:
    """Return `text` as a message can carry it: start and end of what is too long, and encodable."""
    if len(text) > max_chars:
        half = max_chars // 2
        text = f"{text[:half]} [{len(text) - 2 * half} characters left out] {text[-half:]}"
    return text.encode(errors="backslashreplace").decode()


def named(error: BaseException) -> str:
    """Return "ValueError: frame pair has 3 frames", as a message can carry it."""
    kind = type(error).__name__
    text = str(error) or ("out of memory" if isinstance(error, MemoryError) else "")
    return bounded(f"{kind}: {text}" if text else kind, MAX_ERROR_CHARS)


def one_line(text: str) -> str:
    """Return `text` as one line that a terminal can show: it quotes what a file may have said."""
    shown = (sign if sign.isprintable() else ascii(sign)[1:-1] for sign in text)
    return bounded("".join(shown), MAX_ERROR_CHARS)


class Terminated(KeyboardInterrupt):
    """SIGTERM, raised by a handler as Python raises KeyboardInterrupt for SIGINT."""


def describe_exit(code: int) -> str:
    """Return how a process ended, given its exit code (negative: the signal that killed it)."""
    if code >= 0:
        return f"exit code {code}"
    name = _signal_name(-code)
    number = f"signal {-code}"
    return f"killed by {number}" if name == number else f"killed by {number}, {name}"


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # a real-time signal has a number only
        return f"signal {number}"
