"""One worker process: `python -P -m runtime.worker`. Told by messages what to be and to do.

The main thread runs stages and reads messages between runs; `pulse.py` is the small thread beside
it. Imports no model or media library: stages bring theirs.
"""

from __future__ import annotations

import argparse
import gc
import logging
import os
import signal
import sys
import traceback
from contextlib import ExitStack

import zmq

from ipc.channel import Inbox, Outbox
from ipc.errors import PeerLost, ProtocolError
from ipc.messages import AnyMessage, ItemAdmitted, ItemReady, SlotFreed, Stop, Woken
from ipc.records import Peer
from ipc.replay_messages import DropItems, FreeItems, MeetPeer, UnmapPools
from ipc.setup_messages import (
    CloseJob,
    JobClosed,
    JobOpened,
    Load,
    MakePool,
    OpenJob,
    SetupFailed,
    Started,
    TryPools,
)
from runtime.ahead import Ahead
from runtime.errors import MAX_ERROR_CHARS, MAX_TRACEBACK_CHARS, bounded, named, one_line
from runtime.gpu_side import GpuSide
from runtime.items import JobItems
from runtime.ledger import Ledger
from runtime.logs import worker_logs
from runtime.meter import Meter
from runtime.outgoing import SUPERVISOR
from runtime.parent import die_with
from runtime.path import Identity
from runtime.pulse import Pulse
from runtime.replay_side import answer_without_job
from runtime.steps import Steps
from runtime.trace import Recorder
from stages.base import UserError

logger = logging.getLogger(__name__)

EXIT_PROTOCOL = 4
OTHERS = "the other workers"


class Worker:
    """The main thread: one loop, one inbox, at most one open job."""

    def __init__(self, *, name: str, incarnation: int, endpoint: str, supervisor: str) -> None:
        self._name = name
        self._identity = Identity(sender=name, incarnation=incarnation)
        self._endpoint, self._supervisor = endpoint, supervisor
        self._steps = Steps(self._identity)
        self._job: JobItems | None = None
        self._early: list[ItemReady] = []  # they overtook the message that opens the job
        self._is_new = incarnation > 0  # others run a job that is not open here yet
        self._outboxes: dict[str, Outbox] = {}
        self._ledger, self._meter, self._trace = Ledger(), Meter(), Recorder()
        self._stopped = False

    def run(self, *, parent_fd: int) -> None:
        """Serve until `Stop`."""
        with ExitStack() as stack:
            self._zmq_context = stack.enter_context(zmq.Context())
            self._inbox = stack.enter_context(Inbox(self._zmq_context, self._endpoint))
            stack.callback(self._close_outboxes)
            stack.callback(self._trace.close)
            self._outboxes[SUPERVISOR] = Outbox(self._zmq_context, self._supervisor)
            self._gpu = GpuSide(self._identity, self._zmq_context, self._inbox)
            pulse = Pulse(
                self._zmq_context,
                self._ledger,
                self._meter,
                identity=self._identity,
                endpoint=f"{self._endpoint}.pulse",
                supervisor=self._supervisor,
                parent_fd=parent_fd,
            )
            pulse.start()
            stack.callback(pulse.stop)
            stack.callback(self._gpu.close)
            stack.callback(self._steps.close)
            stack.callback(self._abandon_job)
            self._tell(Started(**self._identity))
            self._serve()

    def _serve(self) -> None:
        # What wakes an idle worker it acts upon at once. To look first whether more has come would
        # be an eighth of the whole way from the sender to here.
        while self._take_messages():
            while not self._stopped and not self._run_next():
                self._handle(self._inbox.wait())

    def _run_next(self) -> bool:
        return self._job is not None and self._job.run_next()

    def _take_messages(self) -> bool:
        """Handle all that has come; False after `Stop`."""
        while not self._stopped and (message := self._inbox.try_receive()) is not None:
            self._handle(message)
        return not self._stopped

    def _handle(self, message: AnyMessage) -> None:
        match message:
            case ItemAdmitted():
                self._open_job().admit(message)
            case ItemReady() if self._job is None:
                if self._is_new:  # else it is of a job that is closed by now
                    self._early.append(message)
            case ItemReady():
                self._open_job().take(message)
            case SlotFreed():
                if self._job is not None and self._job.owns(message.pool):
                    self._job.freed(message)  # else of a job that is closed by now
            case Woken():
                if self._job is not None:
                    self._job.end_done()
            case DropItems() | FreeItems() | MeetPeer() | UnmapPools():
                self._replay(message)
            case Stop():
                self._stopped = True
            case _:
                self._do(message)

    def _open_job(self) -> JobItems:
        if self._job is None:
            raise ProtocolError("a message about an item, but no job is open")
        return self._job

    def _do(self, message: AnyMessage) -> None:
        """Do what comes before or after the items, and answer; a failure ends the worker."""
        self._steps.at = ""
        self._ledger.wait("")
        try:
            self._tell(self._answer(message))
            self._ledger.wait(OTHERS)
        except Exception as error:
            what, stage = type(message).__name__, self._steps.at
            logger.exception("failed doing=%s stage=%s", what, stage)
            users_mistake = isinstance(error, UserError)
            self._tell(
                SetupFailed(
                    **self._identity,
                    what=what,
                    stage=stage,
                    error=bounded(str(error) if users_mistake else named(error), MAX_ERROR_CHARS),
                    traceback=bounded(traceback.format_exc(), MAX_TRACEBACK_CHARS),
                    users_mistake=users_mistake,
                )
            )
            self._stopped = True

    def _answer(self, message: AnyMessage) -> AnyMessage:
        """Return the answer; the trace has all steps from one job's end to the next one's."""
        if isinstance(message, OpenJob):
            self._trace.open(*message.trace)
        with self._trace.step(type(message).__name__):
            answer = self._answer_to(message)
        if isinstance(message, CloseJob):
            self._trace.close()
        return answer

    def _answer_to(self, message: AnyMessage) -> AnyMessage:
        match message:
            case OpenJob():
                return self._open(message)
            case CloseJob():
                return self._close()
            case MakePool() | TryPools():
                return self._gpu.answer(message)
            case Load() if message.device != "cpu":
                self._gpu.open()
                return self._steps.answer(message)
            case _:
                return self._steps.answer(message)

    def _open(self, message: OpenJob) -> JobOpened:
        if self._job is not None:
            raise ProtocolError("a job is open already")
        for peer in message.peers:
            if peer.worker != self._name and peer.endpoint:
                self._connect(peer)
        self._steps.open_sinks(message.facts)
        self._job = JobItems(
            message,
            identity=self._identity,
            hosted=self._steps.hosted,
            ledger=self._ledger,
            meter=self._meter,
            trace=self._trace,
            send=self._send,
            gpu=self._gpu.queue(),
        )
        early, self._early, self._is_new = self._early, [], False
        for ready in early:
            self._job.take(ready)
        return JobOpened(**self._identity)

    def _connect(self, peer: Peer) -> None:
        if (old := self._outboxes.pop(peer.worker, None)) is not None:
            old.close()
        self._outboxes[peer.worker] = Outbox(self._zmq_context, peer.endpoint)

    def _replay(self, message: DropItems | FreeItems | MeetPeer | UnmapPools) -> None:
        """Another worker is dead, or back. Before the job is open its opening says it all."""
        if isinstance(message, MeetPeer):
            self._connect(message.peer)
        if self._job is not None:
            self._job.replay.handle(message)
        else:
            answer_without_job(message, self._identity, self._tell)

    def _close(self) -> JobClosed:
        job = self._open_job()
        self._job = None
        job.close()
        for worker in [worker for worker in self._outboxes if worker != SUPERVISOR]:
            self._outboxes.pop(worker).close()
        return JobClosed(**self._identity, usage=self._meter.usage())

    def _abandon_job(self) -> None:
        """Close a job that is open at the end, before its stages are.

        The GPU may use their memory and others' pools until what is queued there is done. Whoever
        told us to stop also kills us if that takes long. What ends us may have broken the GPU, or
        may hold views; that is worth a line, and must not hide it.
        """
        job, self._job = self._job, None
        if job is None:
            return
        try:
            job.close()
        except Exception as error:  # noqa: BLE001 - on the way out, perhaps with another one
            logger.warning("left open job: %s: %s", type(error).__name__, error)

    def _send(self, worker: str, message: AnyMessage) -> None:
        try:
            self._outboxes[worker].send(message)
        except (PeerLost, KeyError) as error:  # of the dead, whom the supervisor sees to
            logger.warning("unsent message=%s to=%s: %s", type(message).__name__, worker, error)

    def _tell(self, message: AnyMessage) -> None:
        self._send(SUPERVISOR, message)

    def _close_outboxes(self) -> None:
        for outbox in self._outboxes.values():
            outbox.close()


def main() -> None:
    """Run a worker. Started by the supervisor, not by people."""
    parser = argparse.ArgumentParser(prog="runtime.worker", description=main.__doc__)
    parser.add_argument("--name", required=True)
    parser.add_argument("--incarnation", type=int, required=True)
    parser.add_argument("--endpoint", required=True, help="where this worker binds its inbox")
    parser.add_argument("--supervisor", required=True, help="the supervisor's inbox")
    parser.add_argument("--parent-pid", type=int, required=True)
    parser.add_argument("--parent-fd", type=int, required=True, help="closes with the parent")
    parser.add_argument("--verbosity", type=int, default=0, help="as in runtime.logs")
    parser.add_argument("--modules", default="", help="of its stages, to be imported at once: a,b")
    parser.add_argument("--opens-gpu", action="store_true", help="at once, before it is told to")
    arguments = parser.parse_args()
    die_with(arguments.parent_pid)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the supervisor
    Ahead(list(filter(None, arguments.modules.split(","))), opens_gpu=arguments.opens_gpu).start()
    worker = Worker(
        name=arguments.name,
        incarnation=arguments.incarnation,
        endpoint=arguments.endpoint,
        supervisor=arguments.supervisor,
    )
    with worker_logs(arguments.name, verbosity=arguments.verbosity):
        logger.info("started worker=%s pid=%d", arguments.name, os.getpid())
        try:
            worker.run(parent_fd=arguments.parent_fd)
        except ProtocolError as error:  # the line says it all: the fault lies with who sent it
            logger.error("broken protocol: %s", one_line(str(error)))
            sys.exit(EXIT_PROTOCOL)
    gc.freeze()  # the process ends: nobody needs to look through all that torch has made


if __name__ == "__main__":
    main()
