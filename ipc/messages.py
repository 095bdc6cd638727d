"""Every message that crosses a process boundary; reading this file is reading the protocol.

A message is a small frozen record of ids, sizes and handles, never of tensor bytes. Its docstring
starts with its direction. Fields of type `bytes` are values of a pipeline (facts, meta, keyword
arguments) as msgpack, which this layer carries and does not open. All processes of a run start
from one checkout, so there is no versioning: an unknown field or tag is a bug and raises.
"""

from __future__ import annotations

import msgspec

from ipc.errors import ProtocolError
from ipc.records import (
    FileSum,
    ItemAttempt,
    LinkStats,
    Peer,
    PoolAddress,
    StageDescription,
    StageTensor,
    StageUse,
    TensorHandle,
    TensorPlace,
)

MAX_META_BYTES = 64 * 1024  # small facts only; what is larger is a tensor
MAX_MESSAGE_BYTES = 4 * 1024 * 1024  # a hostile or broken peer cannot make us take more


class Message(
    msgspec.Struct,
    frozen=True,
    kw_only=True,
    tag=True,
    tag_field="type",
    forbid_unknown_fields=True,
):
    """Base of every message; `tag=True` writes the class name on the wire."""

    sender: str  # "denoise/0"
    incarnation: int  # of the sender; +1 at every restart


# --- supervisor -> worker: from a bare process to an open job -----------------------------------


class Configure(Message, frozen=True):
    """supervisor -> worker: build these stages; answered by `Configured`."""

    stages: tuple[StageUse, ...]


class OpenSource(Message, frozen=True):
    """supervisor -> the source's worker: open the job's input; answered by `SourceOpened`."""

    job: bytes


class Specify(Message, frozen=True):
    """supervisor -> worker: what would an item of these facts write? Answered by `Specified`."""

    facts: bytes


class Load(Message, frozen=True):
    """supervisor -> worker: read the weights; answered by `Loaded`."""

    device: str  # "cpu", "cuda:0" (its own numbering: it sees one GPU)


class Prepare(Message, frozen=True):
    """supervisor -> worker: get ready for items of these facts; answered by `Prepared`."""

    facts: bytes
    size: int


class OpenJob(Message, frozen=True):
    """supervisor -> worker: open pools and peers; answered by `JobOpened`."""

    facts: bytes
    path: tuple[str, ...]  # all stages, in data-flow order
    pools: tuple[PoolAddress, ...]  # those it writes or reads
    owners: dict[str, str]  # pool -> worker, of all pools: handles of others pass through
    places: tuple[TensorPlace, ...]  # in a slot of its own pool
    peers: tuple[Peer, ...]  # all workers of the run, itself too
    round_robin: tuple[str, ...]  # stages whose replicas take turns
    items_per_segment: int  # of the pipeline's sink
    num_items: int
    durable: tuple[int, ...]  # items that an earlier run finished; nobody will send them


class CloseJob(Message, frozen=True):
    """supervisor -> worker: let go of pools and peers; answered by `JobClosed`."""


class Finish(Message, frozen=True):
    """supervisor -> first replica of the sink: join these items; answered by `Finished`."""

    items: tuple[int, ...]


class Stop(Message, frozen=True):
    """supervisor -> worker: finish the item at hand, release everything, exit 0."""


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


class PeerDied(Message, frozen=True):
    """supervisor -> worker (its small thread): this incarnation is dead; answered by `Held`."""

    worker: str
    dead: int  # its incarnation


# --- worker -> supervisor -------------------------------------------------------------------------


class Started(Message, frozen=True):
    """worker -> supervisor: my inboxes are bound, connect to them."""


class Configured(Message, frozen=True):
    """worker -> supervisor: the stages are built."""

    stages: tuple[StageDescription, ...]


class SourceOpened(Message, frozen=True):
    """worker -> supervisor: the input is open."""

    facts: bytes
    num_items: int
    item_size: int  # what `Prepare` will ask for
    unit: str  # "frame pairs"
    num_units: int


class Specified(Message, frozen=True):
    """worker -> supervisor: what an item of these facts writes here."""

    tensors: tuple[StageTensor, ...]


class Loaded(Message, frozen=True):
    """worker -> supervisor: the weights are in place."""

    load_s: float
    versions: dict[str, str]  # {"torch": "2.13.0"} of the libraries that shape the result


class Prepared(Message, frozen=True):
    """worker -> supervisor: ready for items of this size, the largest that fits here."""

    size: int
    prepare_s: float


class JobOpened(Message, frozen=True):
    """worker -> supervisor: pools and peers are open; items may come."""


class Heartbeat(Message, frozen=True):
    """worker (its small thread) -> supervisor: alive; what runs, for how long, how far."""

    item: int  # -1: none
    attempt: int
    running_s: float
    progress: float  # 0 to 1, as far as the stage tells


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


class Held(Message, frozen=True):
    """worker (its small thread) -> supervisor: items queued or running here, or sent, unfreed."""

    dead: str  # the worker whose death was asked about
    items: tuple[ItemAttempt, ...]


class Finished(Message, frozen=True):
    """the sink's worker -> supervisor: the output has its final name."""

    warnings: tuple[str, ...]


class JobClosed(Message, frozen=True):
    """worker -> supervisor: nothing of the job is open here any more; what it cost."""

    items: int
    busy_s: float
    cpu_user_s: float
    cpu_system_s: float
    max_rss_bytes: int
    gpu_peak_bytes: int
    links: tuple[LinkStats, ...]


class SetupFailed(Message, frozen=True):
    """worker -> supervisor: I could not do what I was told before items came, and I exit."""

    what: str  # "Load"
    stage: str  # "" where it is no single one
    error: str
    traceback: str
    users_mistake: bool  # the message alone helps; no traceback


# fmt: off
ToWorker = (
    Configure | OpenSource | Specify | Load | Prepare | OpenJob | CloseJob | Finish | Stop
    | ItemAdmitted | ItemReady | SlotFreed | PeerDied
)
ToSupervisor = (
    Started | Configured | SourceOpened | Specified | Loaded | Prepared | JobOpened | Heartbeat
    | ItemWritten | ItemsDurable | ItemFailed | Held | Finished | JobClosed | SetupFailed
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
