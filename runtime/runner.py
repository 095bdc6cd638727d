"""Who takes the items of a job through the stages: worker processes, or this one."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Protocol

from ipc.messages import Heartbeat
from ipc.records import JobUsage
from runtime.neighbours import ALONE, Neighbours
from runtime.run_trace import RunTrace
from runtime.setup import OpenedJob
from runtime.tally import Tally


class Runner(Protocol):
    """Whoever takes the items through the stages."""

    def pids(self) -> dict[str, int]:
        """Return the process of each worker."""

    def begin(self) -> None:
        """A run begins: what earlier ones have cost is no part of it."""

    def beats(self) -> Mapping[str, Heartbeat]:
        """Return the last heartbeat of each worker, if they have hearts."""

    def usages(self) -> Mapping[str, JobUsage]:
        """Return what the last job has cost each worker, as far as that is known."""

    def run(
        self,
        opened: OpenedJob,
        tally: Tally,
        trace: RunTrace,
        durable: Collection[int] = (),
        neighbours: Neighbours = ALONE,
    ) -> list[str]:
        """Run all items but the `durable` ones; return what the sink warns of.

        Failed items are in `tally`.
        """

    def wait(self) -> None:
        """Hear the workers, who have nothing to do, until `wake` is called."""

    def wake(self) -> None:
        """Have `wait` return. From any thread."""

    def drain(self) -> None:
        """Let nothing new begin; `run` raises KeyboardInterrupt once all that has is durable.

        For a signal handler, or any thread.
        """
