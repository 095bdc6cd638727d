"""Whoever does the work of a pipeline: worker processes, or stages in this process."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import inf
from typing import Protocol, TypeVar

from ipc.messages import AnyMessage
from runtime.path import Identity
from runtime.worker_plan import WorkerPlan

ME = Identity(sender="supervisor", incarnation=0)
M = TypeVar("M", bound=AnyMessage)
Questions = Mapping[str, AnyMessage]  # to each worker its own


class Crew(Protocol):
    """The workers of a pipeline, wherever they are."""

    shares_gpu_memory: bool  # its workers are processes, which open each other's pools

    @property
    def is_whole(self) -> bool:
        """Whether nobody of them is missing."""

    def start(self, plans: Sequence[WorkerPlan]) -> None:
        """Make the workers."""

    def device(self, plan: WorkerPlan) -> str:
        """Return what the worker calls its device."""

    def ask(self, kind: type[M], questions: Questions, timeout_s: float = inf) -> dict[str, M]:
        """Send each worker its message, and return the answers of this kind that come in time.

        Raises:
            ConfigError: it is the user's to mend.
            StageFailed, WorkerDied, WorkerHung: it is not.
        """
