"""Every message that crosses a process boundary; reading this file is reading the protocol.

A message is a small frozen record of ids, sizes and handles, never of tensor bytes. Its docstring
starts with its direction. Fields of type `bytes` are values of a pipeline (facts, meta, keyword
arguments) as msgpack, which this layer carries and does not open. All processes of a run start
from one checkout, so there is no versioning: an unknown field or tag is a bug and raises.
"""

from __future__ import annotations

import msgspec

from ipc.errors import ProtocolError
from ipc.message import Message
from ipc.records import FileSum, ItemAttempt, JobUsage, TensorHandle
from ipc.replay_messages import (
    DropItems,
    FreeItems,
    Held,
    ItemsDropped,
    MeetPeer,
    PeerDied,
    PeerMet,
    UnmapPools,
)
from ipc.setup_messages import (
    CloseJob,
    Configure,
    Configured,
    Finish,
    Finished,
    JobClosed,
    JobOpened,
    Load,
    Loaded,
    MakePool,
    OpenJob,
    OpenSource,
    PoolMade,
    PoolsTried,
    Prepare,
    Prepared,
    SetupFailed,
    SourceOpened,
    Specified,
    Specify,
    Started,
    TryPools,
)

# The messages from a bare process to an open job, and back, are in `ipc/setup_messages.py`; those
# around the death of a worker in `ipc/replay_messages.py`.


class Stop(Message, frozen=True):
    """supervisor -> worker: finish the item at hand, release everything, exit 0."""


class Woken(Message, frozen=True):
    """worker (its waiter thread) -> the same worker: work on its GPU is done."""


# --- the life of an item --------------------------------------------------------------------------


class ItemAdmitted(Message, frozen=True):
    """supervisor -> the source's worker: make this item and send it on its way."""

    item: int
    attempt: int
    failed: str  # why it was given up before it began; "" = it is whole


class ItemReady(Message, frozen=True):
    """producer -> consumer: the item's tensors are whole; here are the handles of all live ones."""

    stage: str  # which stage of the consumer is next
    item: int
    attempt: int
    handles: dict[str, TensorHandle]  # by tensor name, whoever wrote them
    meta: bytes  # small facts that are no tensors; at most MAX_META_BYTES
    failed: str  # why it was given up on the way; "" = it is whole


class SlotFreed(Message, frozen=True):
    """reader -> owner: this reader has let go; the slot is free when all its readers have."""

    pool: str
    slot: int
    item: int
    attempt: int
    reader: str  # the stage that read


# --- worker -> supervisor -------------------------------------------------------------------------


class Heartbeat(Message, frozen=True):
    """worker (its small thread) -> supervisor: alive; what runs, for how long, how far."""

    item: int  # -1: none
    attempt: int
    running_s: float
    progress: float  # 0 to 1, as far as the stage tells
    num_here: int  # items queued or running
    waits_for: str  # "encode", "a slot freed by decode"; "" while a stage runs
    usage: JobUsage  # of the open job so far, or of the last one


class ItemWritten(Message, frozen=True):
    """the sink's worker -> supervisor: the sink took the item; not durable yet."""

    item: int
    attempt: int
    units: int  # really done
    failed: str  # why it is not whole; told here too, as `ItemFailed` comes by another socket


class ItemsDurable(Message, frozen=True):
    """the sink's worker -> supervisor: these items survive the death of everything."""

    items: tuple[ItemAttempt, ...]
    files: tuple[FileSum, ...]
    counts: dict[str, int]  # {"frame pairs": 8}


class ItemFailed(Message, frozen=True):
    """worker -> supervisor: this item raised; the worker is healthy and goes on."""

    stage: str
    item: int
    attempt: int
    error: str  # "ValueError: frame pair has 3 frames"
    traceback: str


class ItemPassed(Message, frozen=True):
    """worker -> supervisor: this stage is done with an item that was admitted again."""

    stage: str
    item: int
    attempt: int


# fmt: off
ToWorker = (
    Configure | OpenSource | Specify | Load | Prepare | MakePool | TryPools | OpenJob | CloseJob
    | Finish | Stop | Woken | ItemAdmitted | ItemReady | SlotFreed | PeerDied | DropItems
    | FreeItems | MeetPeer | UnmapPools
)
ToSupervisor = (
    Started | Configured | SourceOpened | Specified | Loaded | Prepared | PoolMade | PoolsTried
    | JobOpened | Heartbeat | ItemWritten | ItemsDurable | ItemFailed | ItemPassed | Held
    | ItemsDropped | PeerMet | Finished | JobClosed | SetupFailed
)
# fmt: on
AnyMessage = ToWorker | ToSupervisor

_encoder = msgspec.msgpack.Encoder()
_decoder: msgspec.msgpack.Decoder[AnyMessage] = msgspec.msgpack.Decoder(AnyMessage)


def encode(message: AnyMessage) -> bytes:
    """Return the message as one msgpack part."""
    return _encoder.encode(message)


def decode(part: bytes) -> AnyMessage:
    """Return the message in `part`.

    Raises:
        ProtocolError: `part` is not msgpack, or no message has this shape.
    """
    try:
        return _decoder.decode(part)
    except (msgspec.ValidationError, msgspec.DecodeError) as error:
        raise ProtocolError(f"bad message of {len(part)} bytes: {error}") from error
