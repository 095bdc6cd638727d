"""The path of a job's items, as one worker needs it: what comes next, and who does it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypedDict

from ipc.setup_messages import OpenJob


class Identity(TypedDict):
    """Who sends: unpacked into every message."""

    sender: str
    incarnation: int


class JobPath:
    """Answers about the order of stages and their replicas; does not change during a job."""

    def __init__(self, job: OpenJob) -> None:
        self._stages = job.path
        self._position = {name: position for position, name in enumerate(job.path)}
        self._workers = {
            name: tuple(peer.worker for peer in job.peers if name in peer.stages)
            for name in job.path
        }

    @property
    def source(self) -> str:
        """The first stage."""
        return self._stages[0]

    @property
    def sink(self) -> str:
        """The last stage."""
        return self._stages[-1]

    def position(self, stage: str) -> int:
        """How many stages come before `stage`."""
        return self._position[stage]

    def following(self, stage: str) -> str | None:
        """Return the stage after `stage`, None after the sink."""
        position = self._position[stage] + 1
        return self._stages[position] if position < len(self._stages) else None

    def feeding(self, stages: Iterable[str]) -> tuple[str, ...]:
        """Return the stages, not among `stages`, that one of these directly follows."""
        own = set(stages)
        before = {self._stages[self.position(stage) - 1] for stage in own if self.position(stage)}
        return tuple(sorted(before - own, key=self.position))

    def workers(self, stage: str) -> tuple[str, ...]:
        """Return the replicas of `stage`, in order."""
        return self._workers[stage]
