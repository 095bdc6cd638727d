"""What a worker does when another one dies, and when it is back. Belongs to the main thread."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence

from ipc.messages import ItemPassed, ItemReady
from ipc.records import ItemAttempt
from ipc.replay_messages import DropItems, FreeItems, ItemsDropped, MeetPeer, UnmapPools
from ipc.setup_messages import OpenJob
from runtime.ledger import Ledger
from runtime.memory import JobMemory
from runtime.newest import Newest
from runtime.outgoing import SUPERVISOR, Outgoing, Send
from runtime.path import Identity

logger = logging.getLogger(__name__)


class ReplaySide:
    """One open job: which attempts count, and what becomes of the others' slots."""

    def __init__(
        self,
        job: OpenJob,
        *,
        identity: Identity,
        memory: JobMemory,
        outgoing: Outgoing,
        ledger: Ledger,
        send: Send,
    ) -> None:
        self._send = send
        self._identity, self._window, self._path = identity, job.window, job.path
        self._memory, self._outgoing, self._ledger = memory, outgoing, ledger
        self._newest = Newest(job.window)
        self._dropping: list[DropItems] = []  # not answered yet
        for peer in job.peers:
            if not peer.endpoint:  # it is on its way back, and will be met
                ledger.lose(peer.worker)
                outgoing.lose((peer.worker,), self._newest.is_old)

    def is_old(self, item: int, attempt: int) -> bool:
        """Whether this attempt of the item counts no more."""
        return bool(self._newest) and self._newest.is_old(item, attempt)

    def drop(self, message: DropItems) -> None:
        """Note what is old now; send nothing to the dead."""
        attempts = _attempts(message.items)
        self._newest.raise_to(attempts)
        self._ledger.drop_older(attempts)
        for worker in message.workers:
            self._ledger.lose(worker)
        self._outgoing.lose(message.workers, self._newest.is_old)
        self._dropping.append(message)

    def tell_dropped(self, under_way: Iterable[ItemReady]) -> None:
        """Answer what was asked, if nothing that is under way was dropped."""
        if any(self.is_old(run.item, run.attempt) for run in under_way):
            return
        dropping, self._dropping = self._dropping, []
        for message in dropping:
            self._memory.unmap(message.pools)
            self._send(SUPERVISOR, ItemsDropped(**self._identity, asked=message.asked))

    def tell_passed(self, done: ItemReady) -> None:
        """Say that a stage is done with an item that was admitted again."""
        passed = ItemPassed(
            **self._identity, stage=done.stage, item=done.item, attempt=done.attempt
        )
        self._send(SUPERVISOR, passed)

    def free(self, message: FreeItems) -> None:
        """Free slots for which nobody may ever say `SlotFreed`."""
        self._memory.give_up(_attempts(message.items))
        for place in message.passed:
            before = set(self._path[: place.position]) & set(message.stages)
            self._memory.excuse(place.item, place.attempt, before)
        self._memory.excuse_finished(message.oldest, message.finished, window=2 * self._window)

    def meet(self, message: MeetPeer) -> None:
        """Open the pools of a worker that is back, and send to it again."""
        self._memory.meet(message.pools, message.owners, message.places)
        self._ledger.meet(message.peer.worker)
        self._outgoing.meet(message.peer.worker)
        logger.info("met peer=%s incarnation=%d", message.peer.worker, message.peer.incarnation)

    def unmap(self, message: UnmapPools) -> None:
        """Close pools of the dead that no item needs any more."""
        self._memory.unmap(message.pools)


def _attempts(items: Sequence[ItemAttempt]) -> Mapping[int, int]:
    return {one.item: one.attempt for one in items}
