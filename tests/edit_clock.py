"""Work that takes a tick of a clock: editors that wait for it, and the clock, which counts."""

from __future__ import annotations

import selectors
import socket
from collections import Counter

from tests.edit_fakes import FakeEdit

PATIENCE_S = 5.0  # for an editor that has nothing to do, which costs a tick


class Clocked(FakeEdit):
    """Edits when the clock has ticked; `clock` is the path of its socket."""

    def __init__(self, *, area: int, clock: str) -> None:
        super().__init__(area=area)
        self._clock = clock

    def run(self, inputs, outputs, item):
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(self._clock)
            connection.sendall(item.meta.group.encode())
            assert connection.recv(1), "the clock has stopped"
        return super().run(inputs, outputs, item)


class Clock:
    """Ticks when all editors are at work, or nobody else comes: then one or more had none."""

    def __init__(self, path: str, *, editors: int, samples: int) -> None:
        self._listener = socket.socket(socket.AF_UNIX)
        self._path = path
        self._listener.bind(path)
        self._listener.listen(editors)
        self._editors, self._left = editors, samples
        self.ticks: list[Counter[str]] = []  # how many samples of which group were edited in each

    def run(self) -> None:
        """Tick until all samples are edited, or `stop`."""
        with selectors.DefaultSelector() as selector:
            selector.register(self._listener, selectors.EVENT_READ)
            while self._left and (at_work := self._gather(selector)):
                self._left -= len(at_work)
                self.ticks.append(Counter(group for _editor, group in at_work))
                for editor, _group in at_work:
                    with editor:
                        editor.sendall(b"!")

    def _gather(self, selector) -> list[tuple[socket.socket, str]]:
        at_work: list[tuple[socket.socket, str]] = []
        while len(at_work) < min(self._editors, self._left):
            if not selector.select(PATIENCE_S if at_work else 60.0):
                break
            editor, _address = self._listener.accept()
            at_work.append((editor, editor.recv(64).decode()))
        return at_work

    def stop(self) -> None:
        """Have `run` return, also where a run has failed and nobody comes any more."""
        self._left = 0
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(self._path)

    def close(self) -> None:
        self._listener.close()
