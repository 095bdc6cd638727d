"""What leaves a worker when an item is done there: the item itself, and its readers' leases."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

from ipc.messages import AnyMessage, ItemReady, SlotFreed
from ipc.records import TensorHandle
from ipc.setup_messages import OpenJob
from runtime.ledger import Ledger
from runtime.memory import JobMemory
from runtime.path import Identity, JobPath
from runtime.routes import Route, Rule, Sends

Send = Callable[[str, AnyMessage], None]  # to a worker by name


class Outgoing:
    """The routes of one job out of one worker. Belongs to the main thread."""

    def __init__(
        self,
        job: OpenJob,
        path: JobPath,
        stages: Iterable[str],
        *,
        identity: Identity,
        memory: JobMemory,
        ledger: Ledger,
        send: Send,
        take: Callable[[ItemReady], None],
    ) -> None:
        self._identity = identity
        self._memory = memory
        self._ledger = ledger
        self._send = send
        self._take = take  # an item that stays in this worker
        self._routes: dict[str, Route] = {}  # by the stage that they lead to
        self._following: dict[str, str | None] = {}
        for stage in stages:
            following = self._following[stage] = path.following(stage)
            if following is not None:
                self._routes[following] = Route(
                    following,
                    path.workers(following),
                    rule=_rule(job, path, following),
                    items_per_segment=job.items_per_segment,
                    owner=memory.owner,
                )

    def let_go(self, stage: str, reads: Sequence[str], ready: ItemReady) -> None:
        """Tell every owner of what `stage` read of this item that it has let go."""
        slots = {
            (ready.handles[n].pool, ready.handles[n].slot) for n in reads if n in ready.handles
        }
        for pool, slot in sorted(slots):
            freed = SlotFreed(
                **self._identity,
                pool=pool,
                slot=slot,
                item=ready.item,
                attempt=ready.attempt,
                reader=stage,
            )
            owner = self._memory.owner(pool)
            if owner == self._identity["sender"]:
                self.freed(freed)
            else:
                self._send(owner, freed)

    def freed(self, message: SlotFreed) -> None:
        """A reader let go of a slot of ours; its worker may get its next item for that."""
        assert self._memory.slots is not None, "only an owner is told"
        self._memory.slots.free(message.slot, message.item, message.attempt, message.reader)
        if route := self._routes.get(message.reader):
            self._ledger.freed((message.item, message.attempt))
            self._dispatch(route.freed(message.item, message.attempt))

    def pass_on(
        self,
        stage: str,
        ready: ItemReady,
        *,
        handles: Mapping[str, TensorHandle],
        meta: bytes,
        failed: str,
    ) -> None:
        """Send the item to the stage after `stage`; after the sink there is none."""
        following = self._following[stage]
        if following is None:
            return
        onward = ItemReady(
            **self._identity,
            stage=following,
            item=ready.item,
            attempt=ready.attempt,
            handles=dict(handles),
            meta=meta,
            failed=failed,
        )
        self._dispatch(self._routes[following].offer(onward))

    def _dispatch(self, sends: Sends) -> None:
        for worker, ready in sends:
            if worker == self._identity["sender"]:
                self._take(ready)
            else:
                key = (ready.item, ready.attempt)
                if ready.failed:  # nobody may ever say that it has let go of this one
                    self._ledger.drop(key)
                else:
                    self._ledger.send(key, worker)
                self._send(worker, ready)


def _rule(job: OpenJob, path: JobPath, stage: str) -> Rule:
    if stage == path.sink:
        return "segment"
    return "round_robin" if stage in job.round_robin else "least_loaded"
