"""Every message that crosses a process boundary; reading this file is reading the protocol.

A message is a small frozen record of ids, sizes and handles, never of tensor bytes. Its docstring
starts with its direction. Fields of type `bytes` are values of a pipeline (facts, meta, keyword
arguments) as msgpack, which this layer carries and does not open. All processes of a run start
from one checkout, so there is no versioning: an unknown field or tag is a bug and raises.
"""

from __future__ import annotations

import msgspec

from ipc.errors import ProtocolError
from ipc.message import Index, IndexOrNone, Message, MetaBytes, Name, Size, Span
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

    item: Index
    attempt: Index
    failed: str  # why it was given up before it began; "" = it is whole


class ItemReady(Message, frozen=True):
    """producer -> consumer: the item's tensors are whole; here are the handles of all live ones."""

    stage: Name  # which stage of the consumer is next
    item: Index
    attempt: Index
    handles: dict[str, TensorHandle]  # by tensor name, whoever wrote them
    meta: MetaBytes  # small facts that are no tensors
    failed: str  # why it was given up on the way; "" = it is whole


class SlotFreed(Message, frozen=True):
    """reader -> owner: this reader has let go; the slot is free when all its readers have."""

    pool: Name
    slot: Index
    item: Index
    attempt: Index
    reader: Name  # the stage that read


# --- worker -> supervisor -------------------------------------------------------------------------


class Heartbeat(Message, frozen=True):
    """worker (its small thread) -> supervisor: alive; what runs, for how long, how far."""

    item: IndexOrNone
    attempt: Index
    running_s: Span
    progress: float  # 0 to 1, as far as the stage tells
    num_here: Size  # items queued or running
    waits_for: str  # "encode", "a slot freed by decode"; "" while a stage runs
    usage: JobUsage  # of the open job so far, or of the last one


class ItemWritten(Message, frozen=True):
    """the sink's worker -> supervisor: the sink took the item; not durable yet."""

    item: Index
    attempt: Index
    units: Size  # really done
    failed: str  # why it is not whole; told here too, as `ItemFailed` comes by another socket


class ItemsDurable(Message, frozen=True):
    """the sink's worker -> supervisor: these items survive the death of everything."""

    items: tuple[ItemAttempt, ...]
    files: tuple[FileSum, ...]
    counts: dict[str, int]  # {"frame pairs": 8}


class ItemFailed(Message, frozen=True):
    """worker -> supervisor: this item raised; the worker is healthy and goes on."""

    stage: str
    item: Index
    attempt: Index
    error: str  # "ValueError: frame pair has 3 frames"
    traceback: str


class ItemPassed(Message, frozen=True):
    """worker -> supervisor: this stage is done with an item that was admitted again."""

    stage: Name
    item: Index
    attempt: Index


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

MAX_QUOTED = 300  # characters of a complaint

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
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:  # the latter of text in it
        raise ProtocolError(f"bad message of {len(part)} bytes: {_quoted(error)}") from error


def _quoted(error: Exception) -> str:
    """Return what is wrong as a part of one line: it quotes names that the sender chose."""
    text = str(error)
    return ascii(text if len(text) <= MAX_QUOTED else f"{text[:MAX_QUOTED]}...")[1:-1]
