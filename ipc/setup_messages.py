"""The messages around the items: from a bare process to an open job, and back.

The supervisor asks, each worker answers once; the docstring starts with the direction.
"""

from __future__ import annotations

from ipc.message import Index, Message, Size, Span
from ipc.records import (
    ItemAttempt,
    JobUsage,
    Peer,
    PoolAddress,
    StageDescription,
    StageMemory,
    StageTensor,
    StageUse,
    TensorPlace,
)

# --- supervisor -> worker -------------------------------------------------------------------------


class Configure(Message, frozen=True):
    """supervisor -> worker: build these stages; answered by `Configured`."""

    stages: tuple[StageUse, ...]


class OpenSource(Message, frozen=True):
    """supervisor -> the source's worker: open the job's input; answered by `SourceOpened`."""

    job: bytes


class Specify(Message, frozen=True):
    """supervisor -> worker: what would an item of these facts take? Answered by `Specified`."""

    facts: bytes
    device: str  # as in `Load`


class Load(Message, frozen=True):
    """supervisor -> worker: read the weights; answered by `Loaded`."""

    device: str  # "cpu", "cuda:0" (its own numbering: it sees one GPU)


class Prepare(Message, frozen=True):
    """supervisor -> worker: get ready for items of these facts; answered by `Prepared`."""

    facts: bytes
    size: Size


class MakePool(Message, frozen=True):
    """supervisor -> GPU worker: give your GPU pool up, make this one; answered by `PoolMade`.

    Nobody has the old one open: all have said `JobClosed`.
    """

    pool: str  # its name
    num_slots: Index  # 0: none is needed
    slot_bytes: Size


class TryPools(Message, frozen=True):
    """supervisor -> GPU worker: can you read these pools? Answered by `PoolsTried`.

    Each holds a pattern that its owner wrote when it made it.
    """

    pools: tuple[PoolAddress, ...]


class OpenJob(Message, frozen=True):
    """supervisor -> worker: open pools and peers; answered by `JobOpened`."""

    job: Index  # number of the job, from 1
    facts: bytes
    path: tuple[str, ...]  # all stages, in data-flow order
    pools: tuple[PoolAddress, ...]  # those it writes or reads
    owners: dict[str, str]  # pool -> worker, of all pools: handles of others pass through
    places: dict[str, tuple[TensorPlace, ...]]  # pool -> what lies in each of its slots
    peers: tuple[Peer, ...]  # all workers of the run, itself too
    round_robin: tuple[str, ...]  # stages whose replicas take turns
    items_per_segment: Size  # of the pipeline's sink
    num_items: Index
    window: Size  # most items from the oldest that is not finished to the newest
    durable: tuple[tuple[Index, Index], ...]  # first and last + 1 of runs of items nobody will send
    attempts: tuple[ItemAttempt, ...]  # of items that were lost before; older ones do not count
    under_way: PoolAddress  # where to note what is run, for whoever finds us dead
    trace: tuple[PoolAddress, ...]  # one, for its slices; none: nothing is to be traced


class CloseJob(Message, frozen=True):
    """supervisor -> worker: let go of pools and peers; answered by `JobClosed`."""


class Finish(Message, frozen=True):
    """supervisor -> first replica of the sink: join all items; answered by `Finished`."""

    num_items: Index


# --- worker -> supervisor -------------------------------------------------------------------------


class Started(Message, frozen=True):
    """worker -> supervisor: my inboxes are bound, connect to them."""


class Configured(Message, frozen=True):
    """worker -> supervisor: the stages are built."""

    stages: tuple[StageDescription, ...]


class SourceOpened(Message, frozen=True):
    """worker -> supervisor: the input is open."""

    facts: bytes
    num_items: Index
    item_size: Size  # what `Prepare` will ask for
    unit: str  # "frame pairs"
    num_units: Size
    warnings: tuple[str, ...]  # what a user should know of the input
    broken: str  # why it is not whole; "" = it is
    needs: tuple[Index, ...] = ()  # items of the section before that each item waits for


class Specified(Message, frozen=True):
    """worker -> supervisor: what an item of these facts writes here, and takes to compute."""

    tensors: tuple[StageTensor, ...]
    memory: tuple[StageMemory, ...]


class Loaded(Message, frozen=True):
    """worker -> supervisor: the weights are in place."""

    load_s: Span
    versions: dict[str, str]  # {"torch": "2.13.0"} of the libraries that shape the result


class Prepared(Message, frozen=True):
    """worker -> supervisor: ready for items of this size, the largest that fits here."""

    size: Size
    prepare_s: Span


class PoolMade(Message, frozen=True):
    """worker -> supervisor: this is where the pool lies."""

    address: tuple[PoolAddress, ...]  # one, or none
    error: str  # why there is none, though it was asked for


class PoolsTried(Message, frozen=True):
    """worker -> supervisor: which of the pools could not be read, and why."""

    errors: dict[str, str]  # pool -> why


class JobOpened(Message, frozen=True):
    """worker -> supervisor: pools and peers are open; items may come."""


class Finished(Message, frozen=True):
    """the sink's worker -> supervisor: the output has its final name."""

    warnings: tuple[str, ...]


class JobClosed(Message, frozen=True):
    """worker -> supervisor: nothing of the job is open here any more; what it cost."""

    usage: JobUsage


class SetupFailed(Message, frozen=True):
    """worker -> supervisor: I could not do what I was told before items came, and I exit."""

    what: str  # "Load"
    stage: str  # "" where it is no single one
    error: str
    traceback: str
    users_mistake: bool  # the message alone helps; no traceback
