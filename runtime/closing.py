"""The end of a job: everyone lets go of it, and says what it has cost."""

from __future__ import annotations

import logging
import time

from ipc.setup_messages import CloseJob, JobClosed, SetupFailed
from runtime.crew import ME
from runtime.errors import WorkerDied, WorkerHung
from runtime.failures import setup_failure
from runtime.fleet import Fleet

logger = logging.getLogger(__name__)

CLOSE_S = 30.0  # how long workers may take to let go of a job


def close_job(fleet: Fleet, in_job: set[str]) -> dict[str, JobClosed]:
    """Have all workers of a job close it; who dies now, or is late, is buried and not missed.

    Raises:
        StageFailed: one has kept what it was lent.
    """
    closed: dict[str, JobClosed] = {}
    for worker in sorted(in_job):
        fleet.send(worker, CloseJob(**ME))
    deadline = time.monotonic() + CLOSE_S
    while waiting := in_job - closed.keys():
        try:
            message = fleet.receive(deadline=deadline)
        except (WorkerDied, WorkerHung) as error:
            _bury(error.worker, str(error), fleet, in_job)
            continue
        if isinstance(message, SetupFailed):
            raise setup_failure(message)
        if isinstance(message, JobClosed):
            closed[message.sender] = message
        elif message is None and time.monotonic() >= deadline:
            for worker in waiting:
                _bury(worker, f"worker {worker} has not closed the job", fleet, in_job)
    return closed


def _bury(worker: str, why: str, fleet: Fleet, in_job: set[str]) -> None:
    logger.warning("%s, after its work was done", why)
    fleet.bury(worker)
    in_job.discard(worker)
