"""What is done of a job so far: counted from messages, read by progress lines and the report."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable

from ipc.messages import ItemsDurable, ItemWritten

RecordDurable = Callable[[ItemsDurable], None]


class Tally:
    """Counts of one job. Written by the supervisor's thread; plain fields, read from any."""

    def __init__(self, record: RecordDurable) -> None:
        """`record` makes the journal's entry, before anything else learns of it."""
        self._record = record
        self.unit = ""
        self.num_units = 0
        self.num_items = 0
        self.units_done = 0  # written; those of a segment that is still open may be lost
        self.units_durable = 0
        self._units_written: dict[int, int] = {}  # of items that are not durable yet
        self.items_durable = 0
        self.counts: Counter[str] = Counter()
        self.began = time.monotonic()  # the first item was admitted
        self._first: tuple[float, int] | None = None  # when, and units done by then
        self._last = 0.0

    def start(self, *, unit: str, num_units: int, num_items: int) -> None:
        """Begin to count: items are about to be admitted."""
        self.unit, self.num_units, self.num_items = unit, num_units, num_items
        self.began = time.monotonic()

    def wrote(self, message: ItemWritten) -> None:
        """Count an item that the sink took."""
        self.units_done += message.units
        self._units_written[message.item] = message.units
        self._last = time.monotonic()
        if self._first is None:
            self._first = (self._last, self.units_done)

    def durable(self, message: ItemsDurable) -> None:
        """Record items that survive from now on."""
        self._record(message)
        self.items_durable += len(message.items)
        self.units_durable += sum(self._units_written.pop(one.item, 0) for one in message.items)
        self.counts.update(message.counts)

    @property
    def warm_units_per_s(self) -> float:
        """Units a second after the first item; 0 if there was only one."""
        if self._first is None or self._last <= self._first[0]:
            return 0.0
        return (self.units_done - self._first[1]) / (self._last - self._first[0])
