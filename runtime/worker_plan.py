"""One worker of a plan: which stages, where. Everyone who deals with workers may know it."""

from __future__ import annotations

from dataclasses import dataclass

from runtime.host import Gpu


@dataclass(frozen=True, slots=True)
class WorkerPlan:
    """One process: which stages, where, with how many threads."""

    name: str  # "encode+decode/0"
    stages: tuple[str, ...]
    gpu: Gpu | None  # None: a CPU worker
    threads: int  # of one stage, for its own arithmetic
    modules: tuple[str, ...] = ()  # of its stages, to be imported before it is told what they are
    python: str = ""  # of another environment; "" = this one

    @property
    def device(self) -> str:
        """The device as the worker itself names it; it sees one GPU at most."""
        return "cuda:0" if self.gpu else "cpu"

    @property
    def shown_device(self) -> str:
        """The device as people name it."""
        return f"cuda:{self.gpu.index}" if self.gpu else "cpu"
