"""The items of one job in one worker: taken, run into its slots, let go, passed on.

Everything here belongs to the worker's main thread. Of the items that are ready, the one furthest
along the path goes first, then the oldest; so a worker with several stages drains before it fills.
"""

from __future__ import annotations

import logging
import time
import traceback
from collections.abc import Mapping

from msgspec.structs import replace

from ipc.messages import (
    AnyMessage,
    ItemAdmitted,
    ItemFailed,
    ItemReady,
    ItemsDurable,
    ItemWritten,
    SlotFreed,
)
from ipc.records import ItemAttempt, TensorHandle
from ipc.setup_messages import OpenJob
from runtime.errors import MAX_ERROR_CHARS, MAX_TRACEBACK_CHARS, bounded
from runtime.files import file_sum
from runtime.hosted import Hosted, pack_meta
from runtime.ledger import Ledger
from runtime.memory import JobMemory
from runtime.meter import Meter
from runtime.outgoing import Outgoing, Send
from runtime.path import Identity, JobPath
from runtime.trace import Recorder
from runtime.turns import SinkTurns
from stages.base import Item, Sink, Source

logger = logging.getLogger(__name__)

SUPERVISOR = "supervisor"  # as a name to send to


class JobItems:
    """One open job. `admit`, `take` and `freed` bring messages in, `run_next` does the work."""

    def __init__(
        self,
        job: OpenJob,
        *,
        identity: Identity,
        hosted: Mapping[str, Hosted],
        ledger: Ledger,
        meter: Meter,
        trace: Recorder,
        send: Send,
    ) -> None:
        self._identity = identity
        self._hosted = hosted
        self._ledger, self._meter, self._trace = ledger, meter, trace
        self._send = send
        self._path = path = JobPath(job)
        libraries = {stage.stage.library for stage in hosted.values()}
        self._memory = JobMemory(identity["sender"], job.pools, job.owners, job.places, libraries)
        self._outgoing = Outgoing(
            job,
            path,
            hosted,
            identity=identity,
            memory=self._memory,
            ledger=ledger,
            send=send,
            take=self.take,
        )
        self._turns = _turns(job, path, identity) if path.sink in hosted else None
        self._queue: dict[tuple[int, int, int], ItemReady] = {}  # (-position, item, attempt)
        self._attempts: dict[int, int] = {}  # of items that the sink took and that are not durable
        self._work_dir = ""
        if self._turns:
            self._work_dir = hosted[path.sink].facts(job.facts).job.work_dir
        self._upstream = ", ".join(path.feeding(hosted)) or "the oldest item to be durable"
        meter.start(job.job, identity["sender"], max(hosted, key=path.position))
        self._idle_since = time.monotonic()

    def admit(self, message: ItemAdmitted) -> None:
        """Take an item at the start of its life."""
        self.take(
            ItemReady(
                sender=message.sender,
                incarnation=message.incarnation,
                stage=self._path.source,
                item=message.item,
                attempt=message.attempt,
                handles={},
                meta=b"",
                failed=message.failed,
            )
        )

    def take(self, ready: ItemReady) -> None:
        """Queue an item for the stage it names."""
        self._queue[-self._path.position(ready.stage), ready.item, ready.attempt] = ready
        self._ledger.take((ready.item, ready.attempt))

    def owns(self, pool: str) -> bool:
        """Whether `pool` is this job's own pool here."""
        return self._memory.slots is not None and self._memory.slots.name == pool

    def freed(self, message: SlotFreed) -> None:
        """A reader let go of a slot of ours."""
        self._outgoing.freed(message)

    def run_next(self) -> bool:
        """Run the item whose turn it is; False if there is none."""
        key = min((key for key in self._queue if self._is_turn(key)), default=None)
        if key is None:
            what, item = self._waits_for()
            self._ledger.wait(what if item < 0 else f"{what} {item}")
            self._trace.wait(what, item, self._idle_since)
            return False
        ready = self._queue.pop(key)
        hosted = self._hosted[ready.stage]
        if ready.failed and not isinstance(hosted.stage, Sink):
            self._pass_on(hosted, ready, ready.failed)
            return True
        began = time.monotonic()
        self._count(ready, waited_s=began - self._idle_since)
        self._meter.run(began)
        self._trace.run(ready.stage, ready.item, ready.attempt, began)
        failed = self._run_item(hosted, ready)
        self._idle_since = time.monotonic()
        self._trace.ran(self._idle_since, failed=bool(failed))
        took_s = self._idle_since - began
        self._meter.ran(ready.stage, took_s)
        logger.debug(
            "ran stage=%s item=%d attempt=%d took_s=%.4f",
            ready.stage,
            ready.item,
            ready.attempt,
            took_s,
        )
        return True

    def _is_turn(self, key: tuple[int, int, int]) -> bool:
        """Whether the item can run: a sink takes its items in order, all others need a slot.

        The window has a slot for every item in it, but the last `SlotFreed` of a finished item may
        still be on its way when the supervisor has admitted another for it.
        """
        position, item, attempt = key
        if self._turns is not None and -position == self._path.position(self._path.sink):
            return item == self._turns.next_item()
        return self._memory.slots is None or self._memory.slots.can_lease(item, attempt)

    def _count(self, ready: ItemReady, *, waited_s: float) -> None:
        nbytes: dict[str, int] = {}
        for name in self._hosted[ready.stage].reads:
            if handle := ready.handles.get(name):
                owner = self._memory.owner(handle.pool)
                nbytes[owner] = nbytes.get(owner, 0) + self._memory.nbytes(handle)
        self._meter.took(ready.sender, waited_s=waited_s, nbytes=nbytes)

    def _waits_for(self) -> tuple[str, int]:
        """Return what would let this worker go on, for people; of one item only, which one."""
        if not self._queue:
            return self._upstream, -1
        if self._turns is not None and (item := self._turns.next_item()) is not None:
            return "item", item
        return "a free slot", -1

    def _run_item(self, hosted: Hosted, ready: ItemReady) -> str:
        """Run the item and send it on; return why it is given up here, if it is."""
        failed, done = "", ready
        self._ledger.start((ready.item, ready.attempt))
        try:
            meta, written = self._run(hosted, ready)
            done = replace(ready, handles=ready.handles | written, meta=meta)
        except Exception as error:  # noqa: BLE001 - an item's failure is contained here
            failed = self._report_failure(hosted.name, ready, error)
        self._ledger.stop()
        self._pass_on(hosted, done, failed or ready.failed)
        if isinstance(hosted.stage, Sink):
            try:
                self._commit(hosted.stage)
            except Exception as error:  # noqa: BLE001 - a full disk, for one
                failed = self._report_failure(hosted.name, ready, error)
        return failed

    def _pass_on(self, hosted: Hosted, done: ItemReady, failed: str) -> None:
        """Let go of what the stage read, and send the item on."""
        if failed:
            self._memory.keep_for(done.item, done.attempt, done.handles)
        self._outgoing.let_go(hosted.name, hosted.reads, done)
        self._outgoing.pass_on(
            hosted.name, done, handles=done.handles, meta=done.meta, failed=failed
        )

    def _run(self, hosted: Hosted, ready: ItemReady) -> tuple[bytes, dict[str, TensorHandle]]:
        stage = hosted.stage
        written = self._memory.lease(ready.item, ready.attempt, hosted.writes)
        inputs = self._memory.views(ready.handles, hosted.reads, stage.library)
        outputs = self._memory.views(written, hosted.writes, stage.library)
        if isinstance(stage, Source):
            return pack_meta(stage.read(stage.keys()[ready.item], outputs)), written
        item = Item(
            index=ready.item,
            attempt=ready.attempt,
            meta=hosted.meta(ready.meta) if ready.meta else None,
            failed=ready.failed,
            progress=self._ledger.tell,
            part=self._trace.part,
        )
        if isinstance(stage, Sink):
            assert self._turns is not None
            self._turns.took()
            self._attempts[ready.item] = ready.attempt
            units = stage.write(item, inputs, item.meta)
            self._tell(
                ItemWritten(
                    **self._identity,
                    item=item.index,
                    attempt=item.attempt,
                    units=units,
                    failed=item.failed,
                )
            )
            return ready.meta, written
        return pack_meta(stage.run(inputs, outputs, item)), written

    def _commit(self, sink: Sink[object, object, object]) -> None:
        for durable in sink.commit():
            items = tuple(
                ItemAttempt(item=item, attempt=self._attempts.pop(item)) for item in durable.items
            )
            files = tuple(file_sum(self._work_dir, path) for path in durable.files)
            counts = dict(durable.counts)
            self._tell(ItemsDurable(**self._identity, items=items, files=files, counts=counts))
            for one in items:
                self._ledger.drop((one.item, one.attempt))

    def _report_failure(self, stage: str, ready: ItemReady, error: Exception) -> str:
        """Tell the supervisor, and return why the item is given up."""
        reason = bounded(f"{type(error).__name__}: {error}", MAX_ERROR_CHARS)
        text = bounded("".join(traceback.format_exception(error)), MAX_TRACEBACK_CHARS)
        logger.error(
            "failed stage=%s item=%d attempt=%d\n%s", stage, ready.item, ready.attempt, text
        )
        self._tell(
            ItemFailed(
                **self._identity,
                stage=stage,
                item=ready.item,
                attempt=ready.attempt,
                error=reason,
                traceback=text,
            )
        )
        return f"{stage}: {reason}"

    def _tell(self, message: AnyMessage) -> None:
        self._send(SUPERVISOR, message)

    def close(self) -> None:
        """Let go of all pools."""
        self._queue.clear()
        self._ledger.clear()
        self._memory.close()


def _turns(job: OpenJob, path: JobPath, identity: Identity) -> SinkTurns:
    replicas = path.workers(path.sink)
    return SinkTurns(
        num_items=job.num_items,
        items_per_segment=job.items_per_segment,
        replica=replicas.index(identity["sender"]),
        num_replicas=len(replicas),
        durable=job.durable,
    )
