"""The worker processes of one pipeline: started, heard, watched, stopped, always reaped.

Policy is the supervisor's; this knows how. All workers are started from one long-lived thread,
because the kernel kills them (PR_SET_PDEATHSIG) when the *thread* that started them ends.
"""

from __future__ import annotations

import logging
import os
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from math import inf
from pathlib import Path
from types import TracebackType

import zmq

from ipc.channel import Inbox, Outbox, Watch
from ipc.errors import ProtocolError, WouldBlock
from ipc.messages import AnyMessage
from ipc.setup_messages import Loaded, SetupFailed, Started
from runtime.crew import M, Questions
from runtime.errors import ConfigError, RunpipeError, WorkerDied, WorkerHung
from runtime.failures import setup_failure
from runtime.logs import log_path
from runtime.process import WorkerProcess, start_process
from runtime.socket_folder import SocketFolder
from runtime.stopping import ask_to_stop
from runtime.vital import Vital
from runtime.wake import Wake
from runtime.worker_plan import WorkerPlan

logger = logging.getLogger(__name__)

START_S = 60.0  # how long a worker that has not loaded may be silent, whatever `hang_s` is
LAST_WORDS_S = 0.1  # how long a dead worker's last message may still be under way


class Fleet:
    """Owns every process, socket and descriptor of a pipeline. Belongs to one thread at a time."""

    shares_gpu_memory = True
    opens_gpus = False  # workers open theirs as they start: they are going to be told to load

    def __init__(
        self,
        *,
        run_dir: Path,
        hang_s: float,
        stop_grace_s: float,
        item_limit_s: float | None = None,
        verbosity: int = 0,
    ) -> None:
        self._run_dir, self._verbosity = run_dir, verbosity  # of the workers' logs
        self._hang_s, self._stop_grace_s = hang_s, stop_grace_s
        self.workers: dict[str, WorkerProcess] = {}
        self._vital = Vital(item_limit_s)
        self.beats = self._vital.beats
        self._num_endpoints = 0
        self._num_started: Counter[str] = Counter()
        self._last_words: float | None = None  # until when a dead worker's are waited for
        with ExitStack() as stack:
            sockets = SocketFolder()
            stack.callback(sockets.close)
            self._folder = sockets.path
            self._zmq_context = stack.enter_context(zmq.Context())
            self._inbox = stack.enter_context(Inbox(self._zmq_context, self._new_endpoint()))
            self._watch, self._watch_inbox = Watch(self._inbox), Watch(self._inbox)
            self._parent_read, parent_write = os.pipe2(os.O_CLOEXEC)
            stack.callback(os.close, self._parent_read)
            stack.callback(os.close, parent_write)
            self._wake = Wake()
            stack.callback(self._wake.close)
            self._watch.add(self._wake.fd)
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
            self.begin(plan)
        self.gather(Started, [plan.name for plan in plans])
        for name in self.workers:
            self.connect(name)

    def begin(self, plan: WorkerPlan) -> None:
        """Start a process, for the first time or again; it will say `Started`.

        Raises:
            ConfigError: a log file cannot be written, or the host refuses another process.
        """
        try:
            self._spawner.submit(self._start, plan).result()
        except OSError as error:
            raise ConfigError(f"{plan.name}: cannot start a worker: {error}") from error

    def connect(self, name: str) -> None:
        """Be able to send to a worker, which has said `Started`."""
        worker = self.workers[name]
        worker.outbox = Outbox(self._zmq_context, worker.endpoint)
        worker.pulse = Outbox(self._zmq_context, f"{worker.endpoint}.pulse")

    def _start(self, plan: WorkerPlan) -> None:
        """Start one; whole in the spawner, so that an interruption cannot lose the process."""
        endpoint, incarnation = self._new_endpoint(), self._num_started[plan.name]
        self._num_started[plan.name] += 1
        process = start_process(
            plan,
            incarnation=incarnation,
            endpoint=endpoint,
            supervisor=self._inbox.endpoint,
            parent_fd=self._parent_read,
            log=log_path(self._run_dir, plan.name),
            verbosity=self._verbosity,
            opens_gpu=self.opens_gpus,
        )
        pidfd = os.pidfd_open(process.pid)
        self._watch.add(pidfd)
        self.workers[plan.name] = WorkerProcess(plan, incarnation, endpoint, process, pidfd)
        logger.info("started worker=%s pid=%d device=%s", plan.name, process.pid, plan.shown_device)

    @property
    def is_whole(self) -> bool:
        """Whether every worker is there that ever was."""
        return self.workers.keys() == self._num_started.keys()

    def pids(self) -> dict[str, int]:
        """Return the process of each worker."""
        return {name: worker.process.pid for name, worker in self.workers.items()}

    # --- talking ---

    def send(self, worker: str, message: AnyMessage) -> None:
        """Send to a worker; one that is dead is found out by `receive`."""
        self.workers[worker].tell(message)

    def send_pulse(self, worker: str, message: AnyMessage) -> None:
        """Send to a worker's small thread, which answers while a stage runs."""
        self.workers[worker].tell_pulse(message)

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
        while len(answers) < len(workers):
            message = self.receive(deadline=until)
            if message is None and time.monotonic() >= until:
                break
            if isinstance(message, SetupFailed):
                raise setup_failure(message)
            if isinstance(message, kind):
                answers[message.sender] = message
        return {worker: answers[worker] for worker in workers if worker in answers}

    def receive(self, *, deadline: float | None = None, wakes: bool = True) -> AnyMessage | None:
        """Wait for the next message that is more than a heartbeat.

        None if `deadline` comes first, or if `wake` was called and this `wakes`.

        Raises:
            WorkerDied: a worker ended, and its last words have been read.
            WorkerHung: no heartbeat for `hang_s`, or no progress with an item for its limit.
        """
        while True:
            message = self._next_message(deadline, wakes=wakes)
            if message is None:
                return None
            worker = self.workers.get(message.sender)
            if worker is None or worker.incarnation != message.incarnation:
                continue  # of an incarnation that is gone
            worker.heard = time.monotonic()
            worker.has_loaded |= isinstance(message, Loaded)
            if not self._vital.hear(message):
                return message

    def _next_message(self, deadline: float | None, *, wakes: bool) -> AnyMessage | None:
        while True:
            try:
                return self._inbox.receive()
            except WouldBlock:
                pass
            except ProtocolError as error:  # to drop it might be to wait for it for ever
                raise RunpipeError(f"not from a worker: {error}") from error
            self._check_heartbeats()  # only now: a supervisor that was stopped reads first
            dead = self._watch.wait(timeout_s=self._until(deadline))
            if self._wake.fd in dead:
                self._wake.heard()
                if wakes:
                    return None
            elif dead:
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
        next_hang = min((self._hangs_at(worker) for worker in self.workers.values()), default=inf)
        return min(next_hang, deadline or next_hang) - time.monotonic() + 0.001

    def _check_heartbeats(self) -> None:
        now = time.monotonic()
        for worker in self.workers.values():
            if now > self._hangs_at(worker) and worker.process.poll() is None:
                waited_s = now - worker.heard
                raise WorkerHung(worker.plan.name, "no heartbeat", waited_s=waited_s)

    def _hangs_at(self, worker: WorkerProcess) -> float:
        """Return when a silent worker counts as hung; one that imports is silent for long."""
        return worker.heard + (self._hang_s if worker.has_loaded else max(self._hang_s, START_S))

    def wake(self, why: KeyboardInterrupt | None = None) -> None:
        """Have `receive` return soon, or raise `why`. From any thread, or a signal's handler."""
        self._wake.call(why)

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
            ask_to_stop(self.workers.values(), grace_s=self._stop_grace_s)
        finally:
            for name in list(self.workers):
                self.bury(name)

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
