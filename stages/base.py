"""What a stage, a source and a sink are. Imports no model library, so that any worker may.

A stage is a plain object: build it, `load`, `prepare`, then `run` as often as you like, in a
notebook or in a worker. It is given tensors by name and writes into those it is given; where
they lie, and who reads them next, is not its business.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from math import prod
from typing import ClassVar, Generic, Literal, TypeVar

ITEM_BYTES = {
    "uint8": 1,
    "int16": 2,
    "uint16": 2,
    "float16": 2,
    "bfloat16": 2,
    "int32": 4,
    "float32": 4,
    "int64": 8,
    "float64": 8,
}

MAX_ERROR_CHARS = 2000  # of what a user is told

Library = Literal["numpy", "torch"]
TensorT = TypeVar("TensorT")  # numpy.ndarray or torch.Tensor, as `library` says
FactsT = TypeVar("FactsT")  # a frozen dataclass that starts with `job: Job`
MetaT = TypeVar("MetaT")  # a frozen dataclass, at most 64 KiB as msgpack
Part = Callable[[str], AbstractContextManager[None]]  # `with part("copy"):` times what is in it


class UserError(Exception):
    """The user's mistake: the message names the thing and the way out. Shown without traceback.

    It is one line, whatever it quotes of a file.
    """

    def __init__(self, message: str) -> None:
        shown = "".join(sign if sign.isprintable() else ascii(sign)[1:-1] for sign in message)
        middle = MAX_ERROR_CHARS // 2
        if len(shown) > MAX_ERROR_CHARS:
            shown = f"{shown[:middle]} ... {shown[-middle:]}"
        super().__init__(shown)


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """Shape and dtype of one tensor of one item, promised before any item exists."""

    shape: tuple[int, ...]
    dtype: str  # a key of ITEM_BYTES

    @property
    def nbytes(self) -> int:
        """Size in bytes."""
        return prod(self.shape) * ITEM_BYTES[self.dtype]


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What one run is asked to do. Paths are absolute."""

    input: str
    output: str
    work_dir: str  # a sink keeps its durable files here until `finish`
    run_dir: str = ""  # of the whole run; not `work_dir` where the pipeline has sections
    earlier: str = ""  # `work_dir` of the section before; "" = there is none, or it is not run
    overwrite: bool = False
    seed: int = 0
    size: int = 0  # the agreed answer of all `prepare`s; 0 = not agreed yet, as configured


@dataclass(frozen=True, slots=True, kw_only=True)
class Item(Generic[MetaT]):
    """One item, as a stage sees it."""

    index: int  # position in the source's keys
    attempt: int
    meta: MetaT  # what the earlier stages said of it
    failed: str = ""  # why it is given up; only a sink ever sees a failed item
    progress: Callable[[float], None] = field(default=lambda _fraction: None, compare=False)
    part: Part = field(default=lambda _what: nullcontext(), compare=False)  # "copy": for the trace


@dataclass(frozen=True, slots=True, kw_only=True)
class Footprint:
    """About how much memory of its device a stage takes, beside libraries and contexts."""

    weights_bytes: int = 0  # from `load` on
    work_bytes: int = 0  # at most at once, while an item runs


@dataclass(frozen=True, slots=True, kw_only=True)
class Durable:
    """Items that survive the death of everything from now on."""

    items: tuple[int, ...]
    files: tuple[str, ...]  # closed and synced, relative to `job.work_dir`
    counts: Mapping[str, int] = field(default_factory=dict)  # {"frame pairs": 8, "scene cuts": 1}


class _Base(ABC, Generic[TensorT, FactsT, MetaT]):
    """What stages, sources and sinks have in common."""

    library: ClassVar[Library]  # which kind of views it wants
    facts_type: ClassVar[type]  # of FactsT, to decode it from a message
    meta_type: ClassVar[type]  # of MetaT, likewise

    def close(self) -> None:
        """Free what was taken. Called once, also after a failed `load` or `open`."""


class Stage(_Base[TensorT, FactsT, MetaT]):
    """A step of the pipeline between source and sink; keeps no state between items."""

    reads: ClassVar[tuple[str, ...]]
    writes: ClassVar[tuple[str, ...]]

    @abstractmethod
    def specs(self, facts: FactsT) -> dict[str, TensorSpec]:
        """Return what one item writes. Pure; the shapes follow the job, not the constructor."""

    def footprint(self, facts: FactsT, device: str) -> Footprint:
        """Return what it will take on `device` ("cpu", "cuda:0"). Pure, before `load`; 0: unknown.

        A plan shows it, and refuses what cannot fit; `prepare` finds out what does.
        """
        return Footprint()

    def begin_load(self, device: str) -> None:
        """Begin, in threads, what takes long in `load`, which follows and tells what went wrong.

        All stages of a worker are told to begin before the first of them loads.
        """

    @abstractmethod
    def load(self, device: str) -> None:
        """Read the weights onto `device` ("cpu", "cuda:0"), once.

        Raises:
            UserError: the weights are missing, or those of another model.
        """

    def begin_prepare(self, facts: FactsT, size: int) -> None:
        """Begin, in threads, what takes long in `prepare`, which follows, perhaps with less `size`.

        All stages of a worker are told to begin before the first of them prepares.
        """

    @abstractmethod
    def prepare(self, facts: FactsT, size: int) -> int:
        """Make ready for items of `facts`, run once, return the largest size <= `size` that fits.

        Called before the first item of every job.
        """

    @abstractmethod
    def run(
        self, inputs: Mapping[str, TensorT], outputs: Mapping[str, TensorT], item: Item[MetaT]
    ) -> MetaT:
        """Write every element of `outputs`; never write `inputs`. Return the meta that travels on.

        The work is done when this returns; or, where all tensors lie on the stage's own GPU, it may
        be queued on torch's current stream, and nobody waits for it here. Deterministic, given
        inputs and (seed, item.index).
        """


class Source(_Base[TensorT, FactsT, MetaT]):
    """Makes items from a job's input, in any order, as often as asked, as replay needs it."""

    writes: ClassVar[tuple[str, ...]]
    unit: ClassVar[str]  # what users count: "frame pairs"
    warnings: Sequence[str] = ()  # what a user should know of the input, complete after `open`
    broken: str = ""  # why the input is not whole: the rest is done, and the run counts as failed
    # of a source behind a section: for each item, how many leading items of that section must be
    # finished before it can be read; never less than for the one before. Complete after `open`
    needs: Sequence[int] = ()

    @abstractmethod
    def open(self, job: Job) -> FactsT:
        """Open the job's input and return what the stages must know of it.

        Raises:
            UserError: the input is missing, or nothing this source can read.
        """

    @abstractmethod
    def specs(self, facts: FactsT) -> dict[str, TensorSpec]:
        """Return what one item writes. Pure."""

    @abstractmethod
    def keys(self) -> Sequence[int | str]:
        """Return the keys of all items, in order of admission. `open` comes first."""

    @property
    def item_size(self) -> int:
        """How much is computed together: what `Stage.prepare` is asked for. `open` comes first."""
        return 1

    @abstractmethod
    def num_units(self) -> int:
        """Return how many units the whole job has. `open` comes first."""

    @abstractmethod
    def read(self, key: int | str, outputs: Mapping[str, TensorT]) -> MetaT:
        """Write every element of `outputs` for the item `key`; fast for keys in order."""


class Sink(_Base[TensorT, FactsT, MetaT]):
    """Makes results durable. All items of a segment arrive in order, at one replica."""

    reads: ClassVar[tuple[str, ...]]
    warnings: Sequence[str] = ()  # what a user should know of the output, complete after `finish`

    @property
    def items_per_segment(self) -> int:
        """How many neighbouring items become durable together; item i is in segment i // this."""
        return 1

    @abstractmethod
    def open(self, facts: FactsT) -> None:
        """Make ready to write the job `facts.job`.

        Raises:
            UserError: the output cannot be written, or exists and `overwrite` is not set.
        """

    @abstractmethod
    def write(self, item: Item[MetaT], inputs: Mapping[str, TensorT], meta: MetaT | None) -> int:
        """Take one item, return how many units of it were really done; `inputs` end with the call.

        A failed item (`item.failed`) has only the tensors of the source, or none and no `meta` if
        it failed there; its place is closed. Only then is `meta` None.
        """

    @abstractmethod
    def commit(self) -> list[Durable]:
        """Return what became durable since the last call. Called after every `write`."""

    @abstractmethod
    def finish(self, items: Sequence[int]) -> None:
        """Join all durable `items` into the final output. Called once, in one replica."""
