"""The small thread of a worker: heartbeats, answers while a stage runs, and the parent's death.

It has sockets of its own and touches nothing of the main thread's but ledger and meter. A stage
that holds the interpreter lock stops it too; then the heartbeats stop, as they should.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import time

import zmq

from ipc.channel import Inbox, Outbox, Watch
from ipc.errors import PeerLost, ProtocolError, WouldBlock
from ipc.messages import Heartbeat
from ipc.replay_messages import Held, PeerDied
from runtime.ledger import Ledger
from runtime.meter import Meter
from runtime.path import Identity

logger = logging.getLogger(__name__)

HEARTBEAT_S = 0.5
EXIT_ORPHANED = 3


class Pulse(threading.Thread):
    """Runs until `stop`, or until the process has no parent, which ends the process."""

    def __init__(
        self,
        zmq_context: zmq.Context[zmq.Socket[bytes]],
        ledger: Ledger,
        meter: Meter,
        *,
        identity: Identity,
        endpoint: str,
        supervisor: str,
        parent_fd: int,
    ) -> None:
        super().__init__(name="pulse", daemon=True)
        self._ledger, self._meter = ledger, meter
        self._identity = identity
        self._parent_fd = parent_fd  # a pipe that nobody writes to: readable when the parent dies
        self._inbox = Inbox(zmq_context, endpoint)
        self._supervisor = Outbox(zmq_context, supervisor)
        self._stop_read, self._stop_write = os.pipe2(os.O_CLOEXEC)

    def run(self) -> None:
        """Beat, answer, watch."""
        watch = Watch(self._inbox)
        watch.add(self._parent_fd)
        watch.add(self._stop_read)
        next_beat = time.monotonic()
        while True:
            if time.monotonic() >= next_beat:
                next_beat = time.monotonic() + HEARTBEAT_S
                self._beat()
            woken = watch.wait(timeout_s=next_beat - time.monotonic())
            if self._parent_fd in woken:
                os._exit(EXIT_ORPHANED)  # the main thread may be deep in a stage
            if self._stop_read in woken:
                break
            self._answer()
        self._inbox.close()
        self._supervisor.close()
        os.close(self._stop_read)

    def stop(self) -> None:
        """End the thread; its last messages go out."""
        os.close(self._stop_write)
        self.join()

    def _beat(self) -> None:
        running = self._ledger.running()
        seconds = time.monotonic() - running.since if running.item >= 0 else 0.0
        with contextlib.suppress(PeerLost):  # the pipe tells of a dead supervisor
            self._supervisor.send(
                Heartbeat(
                    **self._identity,
                    item=running.item,
                    attempt=running.attempt,
                    running_s=seconds,
                    progress=running.progress,
                    num_here=self._ledger.num_here(),
                    waits_for=running.waits_for,
                    usage=self._meter.usage(),
                )
            )

    def _answer(self) -> None:
        try:
            message = self._inbox.receive()
        except WouldBlock:
            return
        except ProtocolError as error:
            logger.error("dropped by the small thread: %s", error)
            return
        if not isinstance(message, PeerDied):  # to end here would be taken for a hung worker
            what = type(message).__name__
            logger.error("dropped by the small thread: %s of %r", what, message.sender)
            return
        self._beat()  # a run that is about to end wants the last counts in its report
        for one in message.dead:
            self._ledger.lose(one.worker, one.incarnation)
        held = Held(**self._identity, asked=message.asked, items=self._ledger.places())
        with contextlib.suppress(PeerLost):
            self._supervisor.send(held)
