"""How workers are stopped: asked, then told by SIGTERM, then killed."""

from __future__ import annotations

import logging
import signal
import time
from collections.abc import Collection

from ipc.channel import Watch
from ipc.messages import Stop
from runtime.crew import ME
from runtime.process import WorkerProcess

logger = logging.getLogger(__name__)


def ask_to_stop(workers: Collection[WorkerProcess], *, grace_s: float) -> None:
    """Have `workers` end; each way to say so has `grace_s`. Reaping them is their owner's."""
    for worker in workers:
        if worker.outbox is not None:
            worker.tell(Stop(**ME))
        else:
            worker.process.terminate()  # it has no inbox yet
    # A worker in the middle of a stage or an import answers no message; that is no news.
    for signum, level in ((signal.SIGTERM, logging.INFO), (signal.SIGKILL, logging.WARNING)):
        for worker in _wait_for_exits(workers, grace_s):
            logger.log(level, "stopping worker=%s by %s", worker.plan.name, signum.name)
            worker.process.send_signal(signum)


def _wait_for_exits(workers: Collection[WorkerProcess], grace_s: float) -> list[WorkerProcess]:
    """Wait for at most `grace_s`, and return who lives on."""
    deadline, watch = time.monotonic() + grace_s, Watch()
    living = {worker.pidfd: worker for worker in workers}
    for pidfd in living:
        watch.add(pidfd)
    while living and (left := deadline - time.monotonic()) > 0:
        for pidfd in watch.wait(timeout_s=left):
            watch.remove(pidfd)
            del living[pidfd]
    return list(living.values())
