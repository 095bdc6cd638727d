"""The sink's side of a worker: its items in turn, and what of them is durable."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ipc.messages import ItemsDurable, ItemWritten
from ipc.records import ItemAttempt
from ipc.setup_messages import OpenJob
from runtime.files import file_sum
from runtime.hosted import Hosted
from runtime.ledger import Ledger
from runtime.outgoing import SUPERVISOR, Send
from runtime.path import Identity, JobPath
from runtime.turns import SinkTurns
from stages.base import Item, Sink


class SinkItems:
    """One open job. Belongs to the main thread."""

    def __init__(
        self,
        job: OpenJob,
        path: JobPath,
        hosted: Hosted,
        *,
        identity: Identity,
        ledger: Ledger,
        send: Send,
    ) -> None:
        assert isinstance(hosted.stage, Sink)
        replicas = path.workers(path.sink)
        self._sink: Sink[Any, Any, Any] = hosted.stage
        self._identity, self._ledger, self._send = identity, ledger, send
        self._turns = SinkTurns(
            num_items=job.num_items,
            items_per_segment=job.items_per_segment,
            replica=replicas.index(identity["sender"]),
            num_replicas=len(replicas),
            durable=job.durable,
        )
        self._attempts: dict[int, int] = {}  # of items that were taken and are not durable
        self._work_dir = hosted.facts(job.facts).job.work_dir

    @classmethod
    def of(
        cls,
        job: OpenJob,
        path: JobPath,
        stages: Mapping[str, Hosted],
        *,
        identity: Identity,
        ledger: Ledger,
        send: Send,
    ) -> SinkItems | None:
        """Return the sink's side if the sink is among `stages`."""
        hosted = stages.get(path.sink)
        if hosted is None:
            return None
        return cls(job, path, hosted, identity=identity, ledger=ledger, send=send)

    def next_item(self) -> int | None:
        """Return the item whose turn it is; None after the last one."""
        return self._turns.next_item()

    def has_taken(self, item: int, attempt: int) -> bool:
        """Whether the sink has the item already, in an earlier attempt; this one counts then."""
        if not self._turns.has_taken(item):
            return False
        if item in self._attempts:
            self._attempts[item] = attempt
        else:
            self._ledger.drop(item)  # it is durable
        return True

    def write(self, item: Item[Any], inputs: Mapping[str, object]) -> None:
        """Have the sink take the item, and say so."""
        self._turns.took()
        self._attempts[item.index] = item.attempt
        units = self._sink.write(item, inputs, item.meta)
        written = ItemWritten(
            **self._identity,
            item=item.index,
            attempt=item.attempt,
            units=units,
            failed=item.failed,
        )
        self._send(SUPERVISOR, written)

    def commit(self) -> None:
        """Say what has become durable."""
        for durable in self._sink.commit():
            items = tuple(
                ItemAttempt(item=item, attempt=self._attempts.pop(item)) for item in durable.items
            )
            files = tuple(file_sum(self._work_dir, path) for path in durable.files)
            counts = dict(durable.counts)
            message = ItemsDurable(**self._identity, items=items, files=files, counts=counts)
            self._send(SUPERVISOR, message)
            for one in items:
                self._ledger.drop(one.item)
