"""What the stages of an editor have in common: weights, dtype, memory, and one run before all."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import cached_property
from typing import ClassVar

import torch

from stages.base import Footprint, Item, Stage, TensorSpec, UserError
from stages.benchmark.facts import SampleFacts, SampleMeta
from stages.editing.checkpoint import Checkpoint, open_checkpoint
from stages.editing.published import PLAIN, PLUS
from stages.editing.sizes import Size

Tensors = Mapping[str, torch.Tensor]

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


class EditingStage(Stage[torch.Tensor, SampleFacts, SampleMeta]):
    """A stage around some components of a pipeline of diffusers.

    Args:
        weights: folder of the pipeline, or `random:SEED[:PRESET]`.
        dtype: of weights, embeddings and latents: float32, bfloat16 or float16.

    Raises:
        UserError: `dtype` is none of these.
    """

    library = "torch"
    facts_type = SampleFacts
    meta_type = SampleMeta
    parts: ClassVar[tuple[str, ...]] = ()  # components with weights that this stage loads
    takes: tuple[str, ...] = (PLAIN, PLUS)  # classes of pipelines

    def __init__(self, *, weights: str, dtype: str) -> None:
        if dtype not in DTYPES:
            raise UserError(f"dtype {dtype!r} is unknown; write one of {', '.join(DTYPES)}")
        self._weights = weights
        self._dtype_name = dtype
        self._dtype = DTYPES[dtype]
        self._device = torch.device("cpu")
        self._ready_for: tuple[object, ...] | None = None

    @cached_property
    def checkpoint(self) -> Checkpoint:
        """What model the weights are of; reads JSON files at first use."""
        return open_checkpoint(self._weights, self.takes)

    @abstractmethod
    def _load(self) -> None:
        """Read the components onto `self._device`."""

    @abstractmethod
    def _work_bytes(self, facts: SampleFacts) -> int:
        """Return about the most that one sample takes beside weights and its tensors."""

    @abstractmethod
    def _compute(self, inputs: Tensors, outputs: Tensors, item: Item[SampleMeta]) -> SampleMeta:
        """Write every element of `outputs`."""

    @abstractmethod
    def _rehearse(self, facts: SampleFacts, size: Size) -> None:
        """Do once, for a black source of `size`, what a sample needs the memory of."""

    def footprint(self, facts: SampleFacts, device: str) -> Footprint:
        """Return what the weights take, and about what one sample does.

        Raises:
            UserError: the weights are missing, or none of a model that this stage knows.
        """
        return Footprint(weights_bytes=self._weights_bytes(), work_bytes=self._work_bytes(facts))

    def load(self, device: str) -> None:
        """Read the weights onto `device`.

        Raises:
            UserError: they are missing, those of another model, or more than its memory holds.
        """
        self._device = torch.empty(0, device=device).device  # "cuda" becomes "cuda:0"
        with self._computing():
            self._load()

    def prepare(self, facts: SampleFacts, size: int) -> int:
        """Run once with the largest source; return `size`.

        Raises:
            UserError: it needs more memory than there is.
        """
        key = (facts.sizes, facts.max_instruction_bytes)
        if facts.sizes and key != self._ready_for:
            with self._computing():
                self._rehearse(facts, facts.sizes[0])
                if self._device.type == "cuda":
                    torch.cuda.synchronize(self._device)
        self._ready_for = key
        return size

    def run(self, inputs: Tensors, outputs: Tensors, item: Item[SampleMeta]) -> SampleMeta:
        """Write this stage's tensors of one sample, and return what is new of it.

        Raises:
            ValueError: this sample cannot be done; the next one may be.
        """
        with torch.inference_mode(), self._on_device():
            return self._compute(inputs, outputs, item)

    def _on_device(self) -> AbstractContextManager[object]:
        is_cuda = self._device.type == "cuda"
        return torch.cuda.device(self._device) if is_cuda else nullcontext()

    def _parts(self, checkpoint: Checkpoint) -> tuple[str, ...]:
        return self.parts

    def _weights_bytes(self) -> int:
        names = self._parts(self.checkpoint)
        return self.checkpoint.num_parameters(*names) * self._dtype.itemsize

    def _blank(self, specs: Mapping[str, TensorSpec]) -> dict[str, torch.Tensor]:
        return {
            name: torch.zeros(spec.shape, dtype=getattr(torch, spec.dtype), device=self._device)
            for name, spec in specs.items()
        }

    @contextmanager
    def _computing(self) -> Iterator[None]:
        """Say in one line, with numbers, what does not fit; to a user it is the choice of a GPU."""
        try:
            with torch.inference_mode(), self._on_device():
                yield
        except torch.OutOfMemoryError as error:
            free, total = torch.cuda.mem_get_info(self._device)
            raise UserError(
                f"weights {self._weights}: {type(self).__name__} does not fit into the memory of"
                f" {self._device}: {_gib(self._weights_bytes())} for weights, and {_gib(free)} of"
                f" {_gib(total)}"
                " were free when it ran out; give this stage a GPU of its own, or a larger one"
            ) from error


def black_source(facts: SampleFacts, device: torch.device) -> torch.Tensor:
    """Return the tensor `source` of a black picture."""
    return torch.zeros(facts.max_source_bytes, dtype=torch.uint8, device=device)


def meta_of(size: Size, instruction: str = "") -> SampleMeta:
    """Return the meta of a made-up sample."""
    return SampleMeta(
        id="", group="", language="", instruction=instruction, height=size[0], width=size[1], seed=0
    )


def picture_of(source: torch.Tensor, meta: SampleMeta) -> torch.Tensor:
    """Return the picture [height, width, 3] in the tensor `source`."""
    return source[: meta.height * meta.width * 3].view(meta.height, meta.width, 3)


def _gib(nbytes: int) -> str:
    return f"{nbytes / 2**30:.1f} GiB"
