"""The messages around the death of a worker: who holds what, what is begun again, who comes back.

The supervisor asks, each living worker of the job answers once; the docstring starts with the
direction. `asked` numbers the deaths of a run, so that an answer finds its question.
"""

from __future__ import annotations

from ipc.message import Index, IndexOrNone, Message, Name
from ipc.records import DeadWorker, ItemAttempt, ItemPlace, Peer, PoolAddress, TensorPlace

# --- supervisor -> worker -------------------------------------------------------------------------


class PeerDied(Message, frozen=True):
    """supervisor -> worker (its small thread): these workers are dead; answered by `Held`.

    From here on nothing is sent to them until `MeetPeer`.
    """

    asked: IndexOrNone
    dead: tuple[DeadWorker, ...]  # none: only say what you hold


class DropItems(Message, frozen=True):
    """supervisor -> worker: these items begin again; answered by `ItemsDropped`.

    What is here of an older attempt is dropped, and what comes of one from now on; the answer
    comes when nothing here runs with their tensors any more.
    """

    asked: IndexOrNone
    dead: tuple[DeadWorker, ...]
    items: tuple[ItemAttempt, ...]  # the attempt that is to come
    pools: tuple[str, ...]  # of the dead, on GPUs: to be closed before the answer


class FreeItems(Message, frozen=True):
    """supervisor -> worker: what readers may never tell of your slots, as one of them is dead."""

    items: tuple[ItemAttempt, ...]  # nobody has slots of older attempts of these any more
    passed: tuple[ItemPlace, ...]  # of these, `stages` that come before `position` have let go
    stages: tuple[str, ...]  # of the dead
    oldest: Index  # of all items before this one everybody has let go
    finished: tuple[Index, ...]  # and of these


class MeetPeer(Message, frozen=True):
    """supervisor -> worker: a worker is back; open its pools and send to it. Answer: `PeerMet`."""

    peer: Peer
    pools: tuple[PoolAddress, ...]  # those of its pools that the receiver reads
    owners: dict[str, str]  # pool -> worker, of all its pools
    places: dict[str, tuple[TensorPlace, ...]]


class UnmapPools(Message, frozen=True):
    """supervisor -> worker: no item that lives has a tensor in these any more; close them."""

    pools: tuple[str, ...]


# --- worker -> supervisor -------------------------------------------------------------------------


class Held(Message, frozen=True):
    """worker (its small thread) -> supervisor: how far the unfinished items have come here.

    Of each only the furthest: here, or sent on. The one that is furthest of all workers' is true.
    """

    asked: IndexOrNone
    items: tuple[ItemPlace, ...]


class ItemsDropped(Message, frozen=True):
    """worker -> supervisor: nothing here is of older attempts, or in the pools that were named."""

    asked: IndexOrNone


class PeerMet(Message, frozen=True):
    """worker -> supervisor: the pools of `peer` are open here."""

    peer: Name
    peer_incarnation: Index
    error: str  # why they are not; "" = they are
