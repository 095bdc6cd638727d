"""One worker process as its owner sees it, and how it is started."""

from __future__ import annotations

import contextlib
import logging
import os
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

from ipc.channel import Outbox
from ipc.errors import PeerLost
from ipc.messages import AnyMessage
from runtime.worker_plan import WorkerPlan

logger = logging.getLogger(__name__)

KILLED_S = 5.0  # how long a process may take to end by SIGKILL, with much memory to give back
PROJECT = Path(__file__).resolve().parent.parent
# Every library that brings a thread pool of its own reads one of these when it is loaded.
THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
# A stage makes temporary tensors of the same sizes for each item. glibc would give their pages back
# each time, and the faults that bring them in again took about 4 % of the time of EDEN on a CPU.
KEEP_FREED = {
    "MALLOC_MMAP_THRESHOLD_": str(32 * 2**20),  # bytes; glibc takes no larger one
    "MALLOC_TRIM_THRESHOLD_": str(256 * 2**20),
}


@dataclass(slots=True)
class WorkerProcess:
    """One incarnation of a worker. Owned by the fleet."""

    plan: WorkerPlan
    incarnation: int
    endpoint: str
    process: subprocess.Popen[bytes]
    pidfd: int
    outbox: Outbox | None = None  # once it has started
    pulse: Outbox | None = None  # to its small thread
    has_loaded: bool = False
    heard: float = field(default_factory=time.monotonic)

    def tell(self, message: AnyMessage) -> None:
        """Send to its main thread, if it is not dead."""
        _send(self.outbox, message)

    def tell_pulse(self, message: AnyMessage) -> None:
        """Send to its small thread, if it is not dead."""
        _send(self.pulse, message)

    def kill(self) -> None:
        """Kill it if it is not dead already, and reap it.

        SIGKILL is not ignored, but a process inside a driver that hangs ends only when that lets
        go of it. It cannot be helped then, and must not hang its owner too.
        """
        self.process.kill()
        try:
            self.process.wait(KILLED_S)
        except subprocess.TimeoutExpired:
            logger.warning(
                "left worker=%s pid=%d: it has not ended %g s after SIGKILL; perhaps a driver "
                "hangs, and what it holds is not given back until it ends",
                self.plan.name,
                self.process.pid,
                KILLED_S,
            )


def _send(outbox: Outbox | None, message: AnyMessage) -> None:
    assert outbox is not None, "the worker has not started"
    with contextlib.suppress(PeerLost):
        outbox.send(message)


def start_process(
    plan: WorkerPlan,
    *,
    incarnation: int,
    endpoint: str,
    supervisor: str,
    parent_fd: int,
    log: Path,
    verbosity: int,
    opens_gpu: bool,
) -> subprocess.Popen[bytes]:
    """Start a worker: exec, not fork, and in a session of its own.

    Args:
        plan: what it will be; it learns its stages by message, and only imports them by itself.
        incarnation: how often it was started before.
        endpoint: where it binds its inbox.
        supervisor: the inbox of the supervisor.
        parent_fd: the read end of a pipe that closes when this process ends.
        log: gets all it prints.
        verbosity: of its log.
        opens_gpu: it is going to load something, so it may open its GPU, if it has one, at once.
    """
    arguments = {
        "--name": plan.name,
        "--incarnation": incarnation,
        "--endpoint": endpoint,
        "--supervisor": supervisor,
        "--parent-pid": os.getpid(),
        "--parent-fd": parent_fd,
        "--verbosity": verbosity,
        "--modules": ",".join(plan.modules),
    }
    command = [plan.python or sys.executable, "-P", "-m", "runtime.worker"]
    command += [str(word) for pair in arguments.items() for word in pair]
    command += ["--opens-gpu"] if opens_gpu and plan.gpu else []
    with log.open("ab") as output:
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env=_environment(plan),
            pass_fds=(parent_fd,),
            start_new_session=True,  # Ctrl-C in the terminal is for the supervisor alone
        )


def _environment(plan: WorkerPlan) -> dict[str, str]:
    python_path = os.pathsep.join(filter(None, [str(PROJECT), os.environ.get("PYTHONPATH", "")]))
    return {
        **KEEP_FREED,
        **os.environ,
        **dict.fromkeys(THREAD_VARIABLES, str(plan.threads)),
        "PYTHONPATH": python_path,
        "CUDA_DEVICE_ORDER": "PCI_BUS_ID",
        "CUDA_VISIBLE_DEVICES": plan.gpu.uuid if plan.gpu else "",
    }
