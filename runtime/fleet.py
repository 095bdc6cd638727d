"""The worker processes of one pipeline: started, heard, watched, stopped, always reaped.

Policy is the supervisor's; this knows how. All workers are started from one long-lived thread,
because the kernel kills them (PR_SET_PDEATHSIG) when the *thread* that started them ends.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import signal
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from math import inf
from pathlib import Path
from types import TracebackType

import zmq

from ipc.channel import MAX_PATH_BYTES, Inbox, Outbox, Watch
from ipc.errors import PeerLost, ProtocolError, WouldBlock
from ipc.messages import AnyMessage, Heartbeat, Stop
from ipc.setup_messages import SetupFailed, Started
from runtime.crew import M, Questions
from runtime.errors import ConfigError, RunpipeError, StageFailed, WorkerDied, WorkerHung
from runtime.logs import log_path
from runtime.process import WorkerProcess, start_process
from runtime.worker_plan import WorkerPlan

logger = logging.getLogger(__name__)

LONGEST_NAME = len("/999999.pulse")  # of a socket
START_S = 60.0  # how long a process may take to its first message, whatever `hang_s` is
LAST_WORDS_S = 0.1  # how long a dead worker's last message may still be under way


class Fleet:
    """Owns every process, socket and descriptor of a pipeline. Belongs to one thread at a time."""

    shares_gpu_memory = True

    def __init__(
        self, *, run_dir: Path, hang_s: float, stop_grace_s: float, verbosity: int = 0
    ) -> None:
        self._run_dir = run_dir
        self._verbosity = verbosity  # of the workers' logs
        self._hang_s, self._stop_grace_s = hang_s, stop_grace_s
        self.workers: dict[str, WorkerProcess] = {}
        self.beats: dict[str, Heartbeat] = {}  # the last of each worker, also of a dead one
        self._num_endpoints = 0
        self._last_words: float | None = None  # until when a dead worker's are waited for
        with ExitStack() as stack:
            folder = Path(tempfile.mkdtemp(prefix="rp-"))  # short, and 0700
            stack.callback(shutil.rmtree, folder)
            if len(os.fsencode(folder)) + LONGEST_NAME > MAX_PATH_BYTES:
                raise ConfigError(
                    f"{tempfile.gettempdir()}: too long a path for the sockets in it; "
                    "set TMPDIR to a shorter one, such as /tmp"
                )
            self._folder = folder
            self._zmq_context = stack.enter_context(zmq.Context())
            self._inbox = stack.enter_context(Inbox(self._zmq_context, self._new_endpoint()))
            self._watch, self._watch_inbox = Watch(self._inbox), Watch(self._inbox)
            self._parent_read, parent_write = os.pipe2(os.O_CLOEXEC)
            stack.callback(os.close, self._parent_read)
            stack.callback(os.close, parent_write)
            self._spawner = stack.enter_context(ThreadPoolExecutor(1, "spawner"))
            stack.callback(self._stop_all)
            self._exit = stack.pop_all()

    def _new_endpoint(self) -> str:
        self._num_endpoints += 1
        return f"ipc://{self._folder}/{self._num_endpoints}"

    # --- starting ---

    def start(self, plans: Sequence[WorkerPlan]) -> None:
        """Start a process for each plan, and wait until all have bound their inboxes.

        Raises:
            ConfigError: a log file cannot be written, or the host refuses another process.
            WorkerDied, WorkerHung: a worker did not come up.
        """
        for plan in plans:
            try:
                self._spawner.submit(self._start, plan).result()
            except OSError as error:
                raise ConfigError(f"{plan.name}: cannot start a worker: {error}") from error
        self.gather(Started, [plan.name for plan in plans])
        for worker in self.workers.values():
            worker.outbox = Outbox(self._zmq_context, worker.endpoint)
            worker.pulse = Outbox(self._zmq_context, f"{worker.endpoint}.pulse")

    def _start(self, plan: WorkerPlan) -> None:
        """Start one; whole in the spawner, so that an interruption cannot lose the process."""
        endpoint, incarnation = self._new_endpoint(), 0
        process = start_process(
            plan,
            incarnation=incarnation,
            endpoint=endpoint,
            supervisor=self._inbox.endpoint,
            parent_fd=self._parent_read,
            log=log_path(self._run_dir, plan.name),
            verbosity=self._verbosity,
        )
        pidfd = os.pidfd_open(process.pid)
        self._watch.add(pidfd)
        self.workers[plan.name] = WorkerProcess(plan, incarnation, endpoint, process, pidfd)
        logger.info("started worker=%s pid=%d device=%s", plan.name, process.pid, plan.shown_device)

    def pids(self) -> dict[str, int]:
        """Return the process of each worker."""
        return {name: worker.process.pid for name, worker in self.workers.items()}

    # --- talking ---

    def send(self, worker: str, message: AnyMessage) -> None:
        """Send to a worker; one that is dead is found out by `receive`."""
        outbox = self.workers[worker].outbox
        assert outbox is not None, f"{worker} has not started"
        with contextlib.suppress(PeerLost):
            outbox.send(message)

    def send_pulse(self, worker: str, message: AnyMessage) -> None:
        """Send to a worker's small thread, which answers while a stage runs."""
        outbox = self.workers[worker].pulse
        assert outbox is not None, f"{worker} has not started"
        with contextlib.suppress(PeerLost):
            outbox.send(message)

    def device(self, plan: WorkerPlan) -> str:
        """Return what the worker calls its device."""
        return plan.device

    def ask(self, kind: type[M], questions: Questions, timeout_s: float = inf) -> dict[str, M]:
        """Send each worker its message, and return the answers of this kind that come in time.

        Raises:
            WorkerDied, WorkerHung, StageFailed, ConfigError: as `receive`.
        """
        for worker, question in questions.items():
            self.send(worker, question)
        return self.gather(kind, list(questions), time.monotonic() + timeout_s)

    def gather(self, kind: type[M], workers: Sequence[str], until: float = inf) -> dict[str, M]:
        """Wait for one message of this kind from each of `workers`; leave out who is late.

        Raises:
            WorkerDied, WorkerHung, StageFailed, ConfigError: as `receive`.
        """
        answers: dict[str, M] = {}
        while len(answers) < len(workers) and (message := self.receive(deadline=until)):
            if isinstance(message, kind):
                answers[message.sender] = message
        return {worker: answers[worker] for worker in workers if worker in answers}

    def receive(self, *, deadline: float | None = None) -> AnyMessage | None:
        """Wait for the next message that is more than a heartbeat; None if `deadline` comes first.

        Raises:
            WorkerDied: a worker ended, and its last words have been read.
            WorkerHung: no heartbeat for `hang_s`.
            StageFailed, ConfigError: a worker could not do what it was told.
        """
        while True:
            message = self._next_message(deadline)
            if message is None:
                return None
            worker = self.workers.get(message.sender)
            if worker is None or worker.incarnation != message.incarnation:
                continue  # of an incarnation that is gone
            worker.heard = time.monotonic()
            if isinstance(message, SetupFailed):
                raise _failure(message)
            if not isinstance(message, Heartbeat):
                return message
            self.beats[message.sender] = message

    def _next_message(self, deadline: float | None) -> AnyMessage | None:
        while True:
            try:
                return self._inbox.receive()
            except WouldBlock:
                pass
            except ProtocolError as error:  # to drop it might be to wait for it for ever
                raise RunpipeError(f"not from a worker: {error}") from error
            self._check_heartbeats()  # only now: a supervisor that was stopped reads first
            dead = self._watch.wait(timeout_s=self._until(deadline))
            if dead:
                self._wait_for_last_words(dead)
            elif deadline is not None and time.monotonic() >= deadline:
                return None

    def _wait_for_last_words(self, dead: set[int]) -> None:
        if self._last_words is None:
            self._last_words = time.monotonic() + LAST_WORDS_S
        if (left := self._last_words - time.monotonic()) > 0:
            self._watch_inbox.wait(timeout_s=left)
            return
        worker = next(w for w in self.workers.values() if w.pidfd in dead)
        name, how = worker.plan.name, worker.process.wait()
        raise WorkerDied(name, how, log=str(log_path(self._run_dir, name)))

    def _until(self, deadline: float | None) -> float:
        next_hang = min((self._hangs_at(worker) for worker in self.workers.values()), default=0.0)
        return min(next_hang, deadline or next_hang) - time.monotonic() + 0.001

    def _check_heartbeats(self) -> None:
        now = time.monotonic()
        for worker in self.workers.values():
            if now > self._hangs_at(worker) and worker.process.poll() is None:
                waited_s = now - worker.heard
                raise WorkerHung(worker.plan.name, "no heartbeat", waited_s=waited_s)

    def _hangs_at(self, worker: WorkerProcess) -> float:
        """Return when a silent worker counts as hung; a Python that starts is silent for long."""
        has_started = worker.outbox is not None
        return worker.heard + (self._hang_s if has_started else max(self._hang_s, START_S))

    # --- stopping ---

    def bury(self, name: str) -> None:
        """Kill a worker that is not dead already, reap it, and let go of it."""
        self.workers[name].kill()
        self._release(self.workers.pop(name))
        self._last_words = None

    def _release(self, worker: WorkerProcess) -> None:
        self._watch.remove(worker.pidfd)
        os.close(worker.pidfd)
        for outbox in (worker.outbox, worker.pulse):
            if outbox is not None:
                outbox.close()

    def hurry(self) -> None:
        """Do not wait long for workers that are asked to stop: the run has failed anyway."""
        self._stop_grace_s = min(self._stop_grace_s, 1.0)

    def close(self) -> None:
        """Stop all workers and give everything back. Safe to call twice."""
        self._exit.close()

    def _stop_all(self) -> None:
        """Ask, wait `stop_grace_s`, then SIGTERM, then SIGKILL; always reap, if interrupted too."""
        try:
            self._spawner.submit(int).result()  # what it was starting is among the workers now
            self._ask_all_to_stop()
        finally:
            for name in list(self.workers):
                self.bury(name)

    def _ask_all_to_stop(self) -> None:
        for worker in self.workers.values():
            if worker.outbox is not None:
                stop = Stop(sender="supervisor", incarnation=0)
                self.send(worker.plan.name, stop)
            else:
                worker.process.terminate()  # it has no inbox yet
        # A worker in the middle of a stage or an import answers no message; that is no news.
        for signum, level in ((signal.SIGTERM, logging.INFO), (signal.SIGKILL, logging.WARNING)):
            for worker in self._wait_for_exits():
                logger.log(level, "stopping worker=%s by %s", worker.plan.name, signum.name)
                worker.process.send_signal(signum)

    def _wait_for_exits(self) -> list[WorkerProcess]:
        """Wait for at most `stop_grace_s`, and return who lives on."""
        deadline, watch = time.monotonic() + self._stop_grace_s, Watch()
        living = {worker.pidfd: worker for worker in self.workers.values()}
        for pidfd in living:
            watch.add(pidfd)
        while living and (left := deadline - time.monotonic()) > 0:
            for pidfd in watch.wait(timeout_s=left):
                watch.remove(pidfd)
                del living[pidfd]
        return list(living.values())

    def __enter__(self) -> Fleet:
        """Return the fleet."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Stop all workers."""
        self.close()


def _failure(message: SetupFailed) -> Exception:
    if message.users_mistake:
        return ConfigError(message.error)
    stage = message.stage or message.sender.partition("/")[0]
    return StageFailed(message.sender, stage, None, message.error, message.traceback)
