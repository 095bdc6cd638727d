"""What messages are made of: handles, addresses, descriptions; never tensor bytes."""

from __future__ import annotations

import msgspec

from ipc.message import Index, IndexOrNone, Name, Shape, Size, Span


class Record(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of what messages are made of."""


class TensorHandle(Record, frozen=True):
    """Where a tensor lies. Cheap to copy; owning one does not keep the memory alive."""

    pool: Name  # "denoise/0.1#3@cuda": owner, incarnation, job, kind of memory
    slot: Index
    offset: Size  # bytes from the start of the slot
    shape: Shape
    dtype: Name  # "bfloat16"


class TensorPlace(Record, frozen=True):
    """One tensor of a pool's slots: where in a slot it lies, and which stages read it."""

    name: str
    offset: Size  # bytes from the start of the slot
    shape: Shape
    dtype: Name
    readers: tuple[str, ...]  # stage names


class PoolAddress(Record, frozen=True):
    """How to open a pool: a memfd that process `pid` holds open as `fd`, or memory of a GPU."""

    name: str
    owner: str  # "denoise/0"
    num_slots: Index
    slot_bytes: Size
    pid: Index
    fd: IndexOrNone = -1  # -1: none, it lies on a GPU
    gpu: str = ""  # UUID; ordinals differ between processes
    ipc_handle: bytes = b""  # of the whole allocation, as `cuIpcGetMemHandle` gives it


class Peer(Record, frozen=True):
    """Another worker, as one that sends to it must know it."""

    worker: str  # "denoise/0"
    incarnation: IndexOrNone  # -1: it is not there, but will be
    stages: tuple[str, ...]
    endpoint: str  # of its inbox; "" likewise


class DeadWorker(Record, frozen=True):
    """One incarnation of a worker that is no more."""

    worker: Name
    incarnation: Index


class StageUse(Record, frozen=True):
    """A stage to build: `use` names its class, the rest are constructor keywords."""

    name: str  # "denoise"
    use: str  # "stages.eden:Denoise"
    defaults: bytes  # {keyword: value}; those that the constructor knows are passed
    options: bytes  # {keyword: value}; all are passed, and win


class StageDescription(Record, frozen=True):
    """What a built stage says of itself before it loads anything."""

    name: str
    kind: str  # "source" | "stage" | "sink"
    reads: tuple[str, ...]
    writes: tuple[str, ...]
    accepts: tuple[str, ...]  # constructor keywords
    library: str  # "numpy" | "torch": whose tensors it takes
    items_per_segment: Size  # 0 unless a sink


class StageTensor(Record, frozen=True):
    """One tensor that a stage writes for each item of a job."""

    stage: str
    name: str
    shape: Shape
    dtype: Name


class StageMemory(Record, frozen=True):
    """About how much memory of its worker's device a stage takes."""

    stage: str
    weights_bytes: Size
    work_bytes: Size  # at most at once, while an item runs


class ItemAttempt(Record, frozen=True):
    """An item and how often it has been admitted before."""

    item: Index
    attempt: Index


class ItemPlace(Record, frozen=True):
    """How far an item has come, as one worker knows it."""

    item: Index
    attempt: Index
    position: Index  # of the stage in the path that runs it, or is next
    worker: Name  # it was sent there for that; "" = it is here


class FileSum(Record, frozen=True):
    """A finished file, so that resuming can tell whether it is still the same."""

    path: str  # relative to the job's work_dir
    bytes: Size
    sha256: str


class LinkStats(Record, frozen=True):
    """What a worker took from another in one job."""

    peer: str  # who wrote it
    transport: str  # "local" | "cuda-view" | "cuda-copy" | "host"
    items: Size
    bytes: Size  # of the tensors that were read
    wait_s: Span  # idle until an item came from this peer


class JobUsage(Record, frozen=True):
    """What a job has cost one worker so far."""

    job: Index = 0  # which one, of the worker's; 0: none yet
    items: Size = 0  # that its last stage has run
    busy_s: Span = 0.0  # in stages
    cpu_user_s: Span = 0.0
    cpu_system_s: Span = 0.0
    max_rss_bytes: Size = 0  # of the process since it started
    gpu_peak_bytes: Size = 0  # of torch's allocator, likewise; with own pool and staging slots
    links: tuple[LinkStats, ...] = ()
