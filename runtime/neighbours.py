"""What the sections of one run know of each other. From any thread."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from runtime.runner import Runner
    from runtime.setup import OpenedJob

ALL = 2**63 - 1  # more items than any section has


class Leading:
    """How many leading items of a section are finished. One thread moves it on, others look."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._count, self._is_over = 0, False
        self._on_change: list[Callable[[], None]] = []

    @property
    def count(self) -> int:
        """Items before this one are finished."""
        return self._count

    @property
    def is_over(self) -> bool:
        """Whether it will not move on any more, however far it came."""
        return self._is_over

    def reach(self, count: int) -> None:
        """Move on; never back."""
        if count > self._count:
            self._count = count
            self._tell()

    def end(self) -> None:
        """The section is over. Safe to call twice."""
        self._is_over = True
        self._tell()

    def call(self, on_change: Callable[[], None]) -> None:
        """Have `on_change` called whenever there is news, in whatever thread brings it."""
        with self._lock:
            self._on_change = [on_change]

    def forget(self) -> None:
        """Call nobody any more; when this returns, nobody is being called."""
        with self._lock:
            self._on_change = []

    def _tell(self) -> None:
        with self._lock:
            for on_change in self._on_change:
                on_change()


@dataclass(frozen=True, slots=True)
class Neighbours:
    """What is around a section; by default nothing is."""

    before: Leading | None = None  # of the section before, if it runs too
    own: Leading | None = None  # of this one, for the next
    # waits until the section may load, and says why it may not; called once its plan is known
    may_load: Callable[[OpenedJob, Runner], None] = lambda _opened, _runner: None
    run_dir: str = ""  # of the whole run
    earlier: str = ""  # `work_dir` of the section before, if it runs too
    trace_began: float | None = None  # time.monotonic() of the whole run; None: of this section
    title: str = ""  # of the section, as the trace shows it: ": edits"
    number: int = 0  # of the section
    tell_pids: Callable[[Mapping[str, int]], None] = lambda _pids: None  # worker -> process

    def reach(self, count: int) -> None:
        """Tell the next section how many leading items of this one are finished."""
        if self.own:
            self.own.reach(count)

    @contextmanager
    def waking(self, wake: Callable[[], None]) -> Iterator[None]:
        """Have `wake` called, in any thread, when the section before has moved on."""
        if self.before is None:
            yield
            return
        self.before.call(wake)
        try:
            yield
        finally:
            self.before.forget()


ALONE = Neighbours()
