"""What leaves a worker when an item is done there: the item, its readers' leases, bad news."""

from __future__ import annotations

import logging
import traceback
from collections.abc import Callable, Iterable, Sequence

from ipc.messages import AnyMessage, ItemFailed, ItemReady, SlotFreed
from ipc.setup_messages import OpenJob
from runtime.errors import MAX_TRACEBACK_CHARS, bounded, named
from runtime.ledger import Ledger
from runtime.memory import JobMemory
from runtime.path import Identity, JobPath
from runtime.routes import Route, Rule, Sends

logger = logging.getLogger(__name__)

SUPERVISOR = "supervisor"  # as a name to send to
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
        self._path = path
        self._following: dict[str, str | None] = {}
        self._stays: set[str] = set()  # stages whose items stay in this worker
        for stage in stages:
            following = self._following[stage] = path.following(stage)
            if following is not None:
                if path.workers(following) == path.workers(stage) and following != path.sink:
                    self._stays.add(stage)
                self._routes[following] = Route(
                    following,
                    path.workers(following),
                    rule=_rule(job, path, following),
                    items_per_segment=job.items_per_segment,
                    owner=memory.owner,
                )

    def stays(self, stage: str) -> bool:
        """Whether what `stage` has done goes to a stage of this very worker."""
        return stage in self._stays

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
        self._memory.free(message.pool, message.slot, message.item, message.attempt, message.reader)
        if route := self._routes.get(message.reader):
            self._dispatch(route.freed(message.item, message.attempt))

    def pass_on(self, stage: str, ready: ItemReady, *, failed: str) -> None:
        """Send the item to the stage after `stage`; after the sink there is none."""
        if self._following[stage] is not None:
            onward = self.onward(stage, ready, failed=failed)
            self._dispatch(self._routes[onward.stage].offer(onward))

    def onward(self, stage: str, ready: ItemReady, *, failed: str) -> ItemReady:
        """Return the item as it goes on after `stage`, which is not the last one."""
        following = self._following[stage]
        assert following is not None, stage
        return ItemReady(
            **self._identity,
            stage=following,
            item=ready.item,
            attempt=ready.attempt,
            handles=ready.handles,
            meta=ready.meta,
            failed=failed,
        )

    def report_failure(self, stage: str, ready: ItemReady, error: Exception) -> str:
        """Tell the supervisor, and return why the item is given up."""
        reason = named(error)
        text = bounded("".join(traceback.format_exception(error)), MAX_TRACEBACK_CHARS)
        logger.error(
            "failed stage=%s item=%d attempt=%d\n%s", stage, ready.item, ready.attempt, text
        )
        failed = ItemFailed(
            **self._identity,
            stage=stage,
            item=ready.item,
            attempt=ready.attempt,
            error=reason,
            traceback=text,
        )
        self._send(SUPERVISOR, failed)
        return f"{stage}: {reason}"

    # --- when a worker is dead, and when it is back ---

    def lose(self, workers: Iterable[str], is_old: Callable[[int, int], bool]) -> None:
        """`workers` are dead; attempts that are old are nobody's any more."""
        for worker in workers:
            for route in self._routes.values():
                route.lose(worker)
        for route in self._routes.values():
            self._dispatch(route.drop(is_old))

    def meet(self, worker: str) -> None:
        """`worker` is back."""
        for route in self._routes.values():
            self._dispatch(route.meet(worker))

    def _dispatch(self, sends: Sends) -> None:
        for worker, ready in sends:
            position = self._path.position(ready.stage)
            if worker == self._identity["sender"]:
                self._take(ready)
            elif self._ledger.send(ready.item, ready.attempt, position, worker):
                self._send(worker, ready)
            else:
                self._routes[ready.stage].take_back(worker, ready)


def _rule(job: OpenJob, path: JobPath, stage: str) -> Rule:
    if stage == path.sink:
        return "segment"
    return "round_robin" if stage in job.round_robin else "least_loaded"
