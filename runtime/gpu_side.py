"""What a worker's main loop knows of a GPU: nothing, until it is told to load onto one."""

from __future__ import annotations

import logging
import sys
from typing import TYPE_CHECKING

import zmq

from ipc.channel import Inbox, Outbox
from ipc.errors import IpcError
from ipc.messages import AnyMessage, Woken
from ipc.setup_messages import MakePool, PoolMade, PoolsTried, TryPools
from runtime.path import Identity

if TYPE_CHECKING:  # a worker without a GPU imports nothing of it
    from runtime.gpu_queue import GpuQueue
    from runtime.worker_gpu import WorkerGpu

logger = logging.getLogger(__name__)

SWITCH_S = 0.0005  # how long a thread may keep the interpreter from another one
WAKE = "inproc://woken"  # where the waiter's thread reaches the main thread's inbox


class GpuSide:
    """Belongs to the main thread. Without CUDA's driver interface stages still run: they copy."""

    def __init__(
        self, identity: Identity, zmq_context: zmq.Context[zmq.Socket[bytes]], inbox: Inbox
    ) -> None:
        self._identity, self._zmq_context, self._inbox = identity, zmq_context, inbox
        self._gpu: WorkerGpu | None = None
        self._wakes: Outbox | None = None
        self._error = "this worker has no GPU"

    def open(self) -> None:
        """Take the GPU, once. If that fails, the stages have it to themselves."""
        if self._wakes is not None:
            return
        from runtime.worker_gpu import WorkerGpu

        # Python's default of 5 ms would let the waiter's thread stand for 10 ms (p50, measured)
        # behind a main thread that is busy in Python; so it is 0.6 ms at most.
        sys.setswitchinterval(SWITCH_S)
        self._inbox.socket.bind(WAKE)
        wakes = self._wakes = Outbox(self._zmq_context, WAKE)  # for the waiter's thread alone
        woken = Woken(**self._identity)
        try:
            self._gpu = WorkerGpu(self._identity, lambda: wakes.send(woken))
        except IpcError as error:
            self._error = str(error)
            logger.warning("no copies beside computing, no shared GPU memory: %s", error)
        else:
            self._gpu.use()

    def answer(self, message: MakePool | TryPools) -> AnyMessage:
        """Make or try pools on the GPU."""
        if self._gpu is None:
            if isinstance(message, MakePool):
                error = self._error if message.num_slots else ""
                return PoolMade(**self._identity, address=(), error=error)
            errors = {pool.name: self._error for pool in message.pools}
            return PoolsTried(**self._identity, errors=errors)
        if isinstance(message, MakePool):
            return self._gpu.make_pool(message)
        return self._gpu.try_pools(message)

    def queue(self) -> GpuQueue | None:
        """Return a queue for the runs of a new job; None: stages run at once."""
        if self._gpu is None:
            return None
        from runtime.gpu_queue import GpuQueue

        return GpuQueue(self._gpu)

    def close(self) -> None:
        """Leave the GPU to the end of the process, which is to come. The stages come first."""
        if self._gpu is not None:
            self._gpu.leave()
            self._gpu = None
        if self._wakes is not None:
            self._wakes.close()
