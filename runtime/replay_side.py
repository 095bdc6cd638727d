"""What a worker does when another one dies, and when it is back. Belongs to the main thread."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence

from ipc.errors import IpcError
from ipc.messages import ItemPassed, ItemReady
from ipc.records import ItemAttempt
from ipc.replay_messages import (
    DropItems,
    FreeItems,
    ItemsDropped,
    MeetPeer,
    PeerMet,
    UnmapPools,
)
from ipc.setup_messages import OpenJob
from runtime.border import Border
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
        border: Border,
        under_way: Callable[[], Iterable[ItemReady]],
        drop_old: Callable[[Callable[[int, int], bool]], None],
    ) -> None:
        """Begin with the attempts that the job's opening tells of.

        Args:
            job: that is opened.
            identity: of the worker.
            memory: of the job.
            outgoing: of the job.
            ledger: of the worker.
            send: to a worker.
            border: of the job.
            under_way: what runs.
            drop_old: takes what `is_old` from the queue.
        """
        self._send, self._under_way, self._drop_old = send, under_way, drop_old
        self._border = border
        self._identity, self._window, self._path = identity, job.window, job.path
        self._memory, self._outgoing, self._ledger = memory, outgoing, ledger
        self._newest = Newest(job.window)
        self._newest.raise_to(_attempts(job.attempts))
        self._dropping: list[DropItems] = []  # not answered yet
        self._refused: set[str] = set()  # pools that could not be opened
        for peer in job.peers:
            if peer.endpoint:
                ledger.meet(peer.worker, peer.incarnation)
            else:  # it is on its way back, and will be met
                ledger.lose(peer.worker, peer.incarnation)
                outgoing.lose((peer.worker,), self._newest.is_old)

    def is_old(self, item: int, attempt: int) -> bool:
        """Whether this attempt of the item counts no more."""
        return bool(self._newest) and self._newest.is_old(item, attempt)

    def is_of_the_dead(self, ready: ItemReady) -> bool:
        """Whether a worker sent it whose pools could not be opened: it is dead, the item lost."""
        return bool(self._refused) and any(
            handle.pool in self._refused for handle in ready.handles.values()
        )

    def handle(self, message: DropItems | FreeItems | MeetPeer | UnmapPools) -> None:
        """Do what a message asks, and answer."""
        match message:
            case DropItems():
                self._drop(message)
            case FreeItems():
                self._free(message)
            case MeetPeer():
                self._meet(message)
            case UnmapPools():
                self._memory.unmap(message.pools)

    def _drop(self, message: DropItems) -> None:
        """Note what is old now; send nothing to the dead."""
        attempts = _attempts(message.items)
        self._newest.raise_to(attempts)
        self._ledger.drop_older(attempts)
        for one in message.dead:
            self._ledger.lose(one.worker, one.incarnation)
        self._outgoing.lose([one.worker for one in message.dead], self._newest.is_old)
        self._dropping.append(message)
        self._drop_old(self.is_old)
        self.tell_dropped()

    def tell_dropped(self) -> None:
        """Answer what was asked, if nothing that is under way was dropped."""
        if any(self.is_old(run.item, run.attempt) for run in self._under_way()):
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

    def _free(self, message: FreeItems) -> None:
        """Free slots for which nobody may ever say `SlotFreed`."""
        self._memory.give_up(_attempts(message.items))
        for place in message.passed:
            before = set(self._path[: place.position]) & set(message.stages)
            self._memory.excuse(place.item, place.attempt, before)
        self._memory.excuse_finished(message.oldest, message.finished, window=2 * self._window)

    def _meet(self, message: MeetPeer) -> None:
        """Open the pools of a worker that is back, and send to it again.

        If they cannot be opened it may be dead once more; the supervisor knows.
        """
        peer, error = message.peer, ""
        try:
            self._border.meet(message)
            self._memory.meet(message.pools, message.owners, message.places)
        except IpcError as problem:
            error = str(problem)
            self._refused.update(message.owners)
            logger.warning("not met peer=%s: %s", peer.worker, error)
        else:
            if self._ledger.meet(peer.worker, peer.incarnation):
                self._outgoing.meet(peer.worker)
        self._send(SUPERVISOR, peer_met(self._identity, message, error))


def peer_met(identity: Identity, message: MeetPeer, error: str = "") -> PeerMet:
    """Return the answer to `message`."""
    peer = message.peer
    return PeerMet(**identity, peer=peer.worker, peer_incarnation=peer.incarnation, error=error)


def answer_without_job(
    message: DropItems | FreeItems | MeetPeer | UnmapPools,
    identity: Identity,
    tell: Callable[[ItemsDropped | PeerMet], None],
) -> None:
    """Answer as a worker that has no job open, and will be told all when it opens it."""
    match message:
        case DropItems():
            tell(ItemsDropped(**identity, asked=message.asked))
        case MeetPeer():
            tell(peer_met(identity, message))
        case _:
            pass


def _attempts(items: Sequence[ItemAttempt]) -> Mapping[int, int]:
    return {one.item: one.attempt for one in items}
