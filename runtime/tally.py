"""What is done of a job so far: counted from messages, read by the live view and the report."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable

from ipc.messages import ItemFailed, ItemsDurable, ItemWritten
from runtime.journal import DoneItems
from runtime.report import Hang

RecordDurable = Callable[[ItemsDurable], None]

MAX_FAILURES = 100  # told one by one; a broken disk can fail every item of a million


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
        self.items_durable = 0  # failed ones too: their places are closed
        self.failed_items: set[int] = set()  # that anybody has told of
        self.failures: list[ItemFailed] = []  # the first of them
        self._failed_durable = 0
        self._failed_written: dict[int, ItemWritten] = {}  # not durable yet
        # A failure is told by two workers, in either order: who failed, and the sink.
        self._half_told: dict[int, ItemWritten | ItemFailed] = {}
        self.counts: Counter[str] = Counter()
        self.items_replayed = 0  # admitted again, as often as that happened
        self.restarts: Counter[str] = Counter()  # by worker
        self.hangs: list[Hang] = []
        self.on_restart: Callable[[], None] = lambda: None
        self.began = time.monotonic()  # the first item was admitted
        self._first: tuple[float, int] | None = None  # when, and units done by then
        self._last = 0.0

    def start(self, *, unit: str, num_units: int, num_items: int) -> None:
        """Begin to count: items are about to be admitted."""
        self.unit, self.num_units, self.num_items = unit, num_units, num_items
        self.began = time.monotonic()

    def resume(self, done: DoneItems) -> None:
        """Count what earlier runs have done, and nothing else; before any item is counted."""
        self.recount(done)
        self.units_done = done.units
        self.failed_items = set(done.failed)
        self.failures = [
            _item_failed("supervisor", 0, item, why)
            for item, why in sorted(done.failed.items())[:MAX_FAILURES]
        ]

    def recount(self, *journaled: DoneItems) -> None:
        """Take the journal's word for what is durable; none of these overlap."""
        self.units_durable = sum(done.units for done in journaled)
        self.items_durable = sum(map(len, journaled))
        self.counts = sum((Counter(done.counts) for done in journaled), Counter[str]())
        self._failed_durable = sum(len(done.failed) for done in journaled)

    def units_of(self, item: int) -> int:
        """Return what was really done of an item that is written, and not durable yet."""
        return self._units_written.get(item, 0)

    def why_failed(self, item: int) -> str:
        """Return why an item that is written, and not durable yet, is not whole; "" = it is."""
        written = self._failed_written.get(item)
        return written.failed if written else ""

    def wrote(self, message: ItemWritten) -> None:
        """Count an item that the sink took; perhaps again, if the one that had it died."""
        item = message.item
        self.units_done += message.units - self._units_written.get(item, 0)
        self._units_written[item] = message.units
        if message.failed:
            self.failed_items.add(item)
            self._failed_written[item] = message
            if item in self._half_told or all(one.item != item for one in self.failures):
                self._tell_half(message)  # else the sink died in between, and has told it before
            return
        if item in self.failed_items:  # in an earlier attempt
            self._forget_failure(item)
        self._last = time.monotonic()
        if self._first is None:
            self._first = (self._last, self.units_done)

    def failed(self, message: ItemFailed) -> None:
        """Keep the reason why an item failed, the last one."""
        if message.item in self.failed_items:
            self.failures = [one for one in self.failures if one.item != message.item]
        self.failed_items.add(message.item)
        if len(self.failures) < MAX_FAILURES:
            self.failures.append(message)
        self._tell_half(message)

    def _tell_half(self, message: ItemWritten | ItemFailed) -> None:
        other = self._half_told.get(message.item)
        if other is None or type(other) is type(message):
            self._half_told[message.item] = message
        else:
            del self._half_told[message.item]

    def _forget_failure(self, item: int) -> None:
        self.failed_items.discard(item)
        self.failures = [one for one in self.failures if one.item != item]
        self._failed_written.pop(item, None)
        self._half_told.pop(item, None)

    def restarted(self, worker: str) -> None:
        """Note that a worker is back, in a new process."""
        self.restarts[worker] += 1
        self.on_restart()

    def explain_rest(self) -> None:
        """Take the sink's word for items whose failing worker has not told why."""
        for half in list(self._half_told.values()):
            if isinstance(half, ItemWritten):
                self.failed(_item_failed(half.sender, half.attempt, half.item, half.failed))

    @property
    def all_told(self) -> bool:
        """Whether every item that the sink knows as failed has its reason."""
        return not self._half_told

    def durable(self, message: ItemsDurable) -> None:
        """Record items that survive from now on."""
        self._record(message)
        self.items_durable += len(message.items)
        for one in message.items:
            self.units_durable += self._units_written.pop(one.item, 0)
            self._failed_durable += self._failed_written.pop(one.item, None) is not None
        self.counts.update(message.counts)

    @property
    def items_failed(self) -> int:
        """Items that were given up."""
        return len(self.failed_items)

    @property
    def items_done(self) -> int:
        """Items that are durable and whole."""
        return self.items_durable - self._failed_durable

    @property
    def warm_units_per_s(self) -> float:
        """Units a second after the first item; 0 if there was only one."""
        if self._first is None or self._last <= self._first[0]:
            return 0.0
        return (self.units_done - self._first[1]) / (self._last - self._first[0])


def _item_failed(sender: str, attempt: int, item: int, why: str) -> ItemFailed:
    """Return what whoever failed would have told; `why` is "stage: error"."""
    stage, _, error = why.partition(": ")
    return ItemFailed(
        sender=sender,
        incarnation=0,
        stage=stage,
        item=item,
        attempt=attempt,
        error=error,
        traceback="",
    )
