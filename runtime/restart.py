"""How one worker comes back: the questions it is asked, in order, until it has the job open.

A generator for each, as it waits for answers between the messages of all others. The supervisor
feeds it and decides what becomes of one that fails.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Generator
from dataclasses import dataclass

from ipc.messages import AnyMessage
from ipc.records import PoolAddress
from ipc.setup_messages import (
    Configured,
    Load,
    Loaded,
    OpenSource,
    PoolMade,
    Prepare,
    Prepared,
    SourceOpened,
    Started,
)
from runtime.cli_table import nbytes_text
from runtime.config import PipelineConfig
from runtime.crew import ME
from runtime.errors import RunpipeError
from runtime.host import Gpu
from runtime.hosted import pack
from runtime.job_pools import JobPools
from runtime.setup import OpenedJob, configure_question
from runtime.worker_plan import WorkerPlan

logger = logging.getLogger(__name__)

MEMORY_S = 30.0  # how long a GPU may take to give a dead process's memory back
LOOK_S = 0.2  # how often it is looked whether it has


@dataclass(frozen=True, slots=True)
class Ask:
    """Send this (None: nothing) and wait for an answer of this kind."""

    question: AnyMessage | None
    kind: type[AnyMessage]


@dataclass(frozen=True, slots=True)
class Until:
    """Wait until this time (`time.monotonic()`)."""

    when: float


Steps = Generator[Ask | Until, AnyMessage | None, tuple[PoolAddress, ...]]


@dataclass(frozen=True, slots=True)
class GpuMemory:
    """What can be told of the memory that a dead worker had."""

    free_bytes: Callable[[str], int | None]  # of a GPU by its UUID; None: nobody can tell
    is_open: Callable[[str], bool]  # whether anybody has the pool of this dead worker open


class CannotReturn(RunpipeError):
    """A worker started again, but is not what it was."""


def come_back(
    plan: WorkerPlan,
    config: PipelineConfig,
    opened: OpenedJob,
    pools: JobPools,
    memory: GpuMemory,
) -> Steps:
    """Yield what is to be done until the worker is ready to open the job; return its GPU pool.

    Raises:
        CannotReturn: it takes smaller items than the run's, or finds another input.
    """
    yield Ask(None, Started)
    yield Ask(configure_question(config, plan), Configured)
    if opened.plan.path[0] in plan.stages:
        source = yield Ask(OpenSource(**ME, job=pack(opened.job)), SourceOpened)
        assert isinstance(source, SourceOpened)
        if source.facts != opened.facts:
            raise CannotReturn(f"{opened.job.input}: is not what it was when the run began")
    if plan.gpu is not None:
        room = opened.plan.room.get(plan.name, 0)
        yield from _memory_back(plan, plan.gpu, room, memory)
    yield Ask(Load(**ME, device=plan.device), Loaded)
    size = opened.item_size
    prepared = yield Ask(Prepare(**ME, facts=opened.facts, size=size), Prepared)
    assert isinstance(prepared, Prepared)
    if prepared.size != size:
        raise CannotReturn(f"items of size {size} no longer fit; {prepared.size} would")
    if (question := pools.question(plan.name)) is None:
        return ()
    made = yield Ask(question, PoolMade)
    assert isinstance(made, PoolMade)
    if made.error:
        raise CannotReturn(f"no pool on {plan.shown_device}: {made.error}")
    return made.address


def _memory_back(
    plan: WorkerPlan, gpu: Gpu, room: int, memory: GpuMemory
) -> Generator[Ask | Until, AnyMessage | None, None]:
    """Wait until what the dead process had of the GPU is free again.

    Its memory outlives it for as long as others have its pool open; they close it after what they
    run just then. A driver may take seconds to give back tens of gigabytes, piece by piece.
    """
    while memory.is_open(plan.name):
        yield Until(time.monotonic() + LOOK_S)
    give_up, before = time.monotonic() + MEMORY_S, -1
    while (free := memory.free_bytes(gpu.uuid)) is not None:
        is_enough = free >= room
        if is_enough and free <= before:
            return
        if time.monotonic() >= give_up:
            if not is_enough:
                logger.warning(
                    "memory not back worker=%s device=%s: %s are free after %g s, %s are needed; "
                    "it loads all the same",
                    plan.name,
                    plan.shown_device,
                    nbytes_text(free),
                    MEMORY_S,
                    nbytes_text(room),
                )
            return
        before = free
        yield Until(time.monotonic() + LOOK_S)
