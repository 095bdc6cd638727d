"""What the three stages of EDEN have in common: weights, specs, size, and where tensors lie.

Legend: K pairs of a window, Q latents of a pair, L = 4 * Q tokens of a frame, C channels.
"""

from __future__ import annotations

import logging
from abc import abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import cached_property
from math import prod
from typing import ClassVar, Generic, TypeVar

import torch

from stages.base import Footprint, Item, Part, Stage, TensorSpec, UserError
from stages.eden.architecture import Architecture
from stages.eden.checkpoint import read_architecture, read_tensors
from stages.eden.geometry import Geometry, Grid, make_grid
from stages.eden.layers import Weights
from stages.window import VideoFacts, WindowMeta

logger = logging.getLogger(__name__)

Tensors = Mapping[str, torch.Tensor]
NetworkT = TypeVar("NetworkT")

DTYPES = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}


class EdenStage(Stage[torch.Tensor, VideoFacts, WindowMeta], Generic[NetworkT]):
    """A stage around one of EDEN's networks.

    Args:
        weights: path of a checkpoint, or `random:SEED[:PRESET]`.
        dtype: of weights, tokens and large products: float32, bfloat16 or float16. Statistics,
            latents and Euler steps are float32 always.

    Raises:
        UserError: `dtype` is none of these.
    """

    library = "torch"
    facts_type = VideoFacts
    meta_type = WindowMeta
    prefixes: ClassVar[tuple[str, ...]]  # of the tensors that this stage loads

    def __init__(self, *, weights: str, dtype: str = "float32") -> None:
        if dtype not in DTYPES:
            raise UserError(f"dtype {dtype!r} is unknown; write one of {', '.join(DTYPES)}")
        self._weights = weights
        self._dtype = dtype
        self._device = torch.device("cpu")
        self._network: NetworkT | None = None
        self._facts: VideoFacts | None = None
        self._grid: Grid | None = None

    @cached_property
    def architecture(self) -> Architecture:
        """What model the weights are of; reads the checkpoint's header at first use."""
        return read_architecture(self._weights)

    @property
    def network(self) -> NetworkT:
        """The loaded network."""
        assert self._network is not None, "`load` comes first"
        return self._network

    @property
    def facts(self) -> VideoFacts:
        """Of the job at hand."""
        assert self._facts is not None, "`prepare` comes first"
        return self._facts

    @property
    def grid(self) -> Grid:
        """Of the job's frames."""
        assert self._grid is not None, "`prepare` comes first"
        return self._grid

    @abstractmethod
    def _build(self, weights: Weights) -> NetworkT:
        """Return the network."""

    @abstractmethod
    def _compute(self, inputs: Tensors, outputs: Tensors, item: Item[WindowMeta]) -> None:
        """Write every element of `outputs`; all tensors lie on the stage's device."""

    def specs(self, facts: VideoFacts) -> dict[str, TensorSpec]:
        """Return what one window writes."""
        every = self._every_spec(facts)
        return {name: every[name] for name in self.writes}

    def footprint(self, facts: VideoFacts, device: str) -> Footprint:
        """Return about what one window takes; the factors are measured on the CPU."""
        specs, dtype = self._every_spec(facts), DTYPES[self._dtype]
        mine = tuple(f"{prefix}." for prefix in self.prefixes)
        weights = sum(
            prod(shape)
            for name, shape in self.architecture.shapes().items()
            if name.startswith(mine)
        )
        work = self._work_bytes(facts, specs)
        if device != "cpu":  # where slots are in host memory, the GPU has copies
            work += sum(specs[name].nbytes for name in (*self.reads, *self.writes))
        return Footprint(weights_bytes=weights * dtype.itemsize, work_bytes=work)

    @abstractmethod
    def _work_bytes(self, facts: VideoFacts, specs: Mapping[str, TensorSpec]) -> int:
        """Return about the most that `_compute` has allocated at once."""

    def load(self, device: str) -> None:
        """Read this stage's part of the weights onto `device`.

        Raises:
            UserError: the weights are missing, or those of another model.
        """
        self._device = torch.empty(0, device=device).device  # "cuda" becomes "cuda:0"
        tensors = read_tensors(self._weights, self.prefixes)
        with torch.inference_mode():
            self._network = self._build(Weights(tensors, self._device, DTYPES[self._dtype]))

    def prepare(self, facts: VideoFacts, size: int) -> int:
        """Make ready for frames of `facts`; return how many pairs, up to `size`, fit in memory.

        Raises:
            UserError: not even one pair does.
        """
        geometry = Geometry(facts.height, facts.width, self.architecture.patch)
        self._facts = facts
        self._grid = make_grid(geometry, self.architecture.hidden, self._device)
        while not self._fits(size):
            if size == 1:
                raise UserError(
                    f"one pair of {facts.width}x{facts.height} frames does not fit into the"
                    f" memory of {self._device}; use a smaller video or a larger GPU"
                )
            logger.warning("out of memory device=%s pairs=%d", self._device, size)
            size //= 2
        return size

    def run(self, inputs: Tensors, outputs: Tensors, item: Item[WindowMeta]) -> WindowMeta:
        """Write this stage's tensors of the window; `inputs` and `outputs` may lie anywhere.

        Raises:
            torch.OutOfMemoryError: more was put on this GPU since `prepare`.
        """
        written = {name: outputs[name] for name in self.writes}
        read = {name: inputs[name] for name in self.reads}
        with torch.inference_mode(), _writable_on(self._device, written, item.part) as targets:
            self._compute(_copied_to(self._device, read, item.part), targets, item)
        if self._device.type == "cuda":
            torch.cuda.current_stream(self._device).synchronize()
        return item.meta

    def close(self) -> None:
        """Let go of the weights."""
        self._network = None
        self._grid = None

    def _fits(self, size: int) -> bool:
        try:
            self._rehearse(size)
        except torch.OutOfMemoryError:
            torch.cuda.empty_cache()
            return False
        return True

    def _rehearse(self, size: int) -> None:
        """Run one window of `size` pairs of black frames."""
        specs = self._every_spec(replace(self.facts, pairs_per_item=size))
        inputs = {name: self._zeros(specs[name]) for name in self.reads}
        outputs = {name: self._zeros(specs[name]) for name in self.writes}
        meta = WindowMeta(num_pairs=size, pts=tuple(range(size + 1)), cuts=(False,) * size)
        self.run(inputs, outputs, Item(index=0, attempt=0, meta=meta))

    def _zeros(self, spec: TensorSpec) -> torch.Tensor:
        dtype: torch.dtype = getattr(torch, spec.dtype)
        return torch.zeros(spec.shape, dtype=dtype, device=self._device)

    def _every_spec(self, facts: VideoFacts) -> dict[str, TensorSpec]:
        """Return all tensors of a window that an EDEN stage reads or writes."""
        model, pairs = self.architecture, facts.pairs_per_item
        geometry = Geometry(facts.height, facts.width, model.patch)
        tokens = TensorSpec((pairs + 1, geometry.num_tokens, model.hidden), self._dtype)
        return {
            "frames": TensorSpec((pairs + 1, facts.frame_bytes), "uint8"),
            "tokens_dit": tokens,
            "tokens_dec": tokens,
            "stats": TensorSpec((pairs + 1, 2), "float32"),
            "difference": TensorSpec((pairs, 1), "float32"),
            "latents": TensorSpec((pairs, geometry.num_latents, model.latent), "float32"),
            "middle": TensorSpec((pairs, facts.color_bytes), "uint8"),
        }


def rgb_bytes(facts: VideoFacts) -> int:
    """Return the size of a window's frames as float32 RGB."""
    return (facts.pairs_per_item + 1) * 3 * facts.height * facts.width * 4


def _copied_to(device: torch.device, inputs: Tensors, part: Part) -> Tensors:
    """Return the inputs on `device`; from pageable memory `to` returns when it has read it all."""
    if all(view.device == device for view in inputs.values()):
        return inputs
    with part("copy"):
        return {name: view.to(device) for name, view in inputs.items()}


@contextmanager
def _writable_on(device: torch.device, outputs: Tensors, part: Part) -> Iterator[Tensors]:
    """Yield tensors on `device` to write: the outputs themselves where they lie there.

    The others, such as slots in host memory, are copied when the block ends.
    """
    targets = {
        name: view if view.device == device else torch.empty_like(view, device=device)
        for name, view in outputs.items()
    }
    yield targets
    away = [name for name, view in outputs.items() if targets[name] is not view]
    if not away:
        return
    if device.type == "cuda":  # the copy would wait for it too, and its time is to be its own
        torch.cuda.current_stream(device).synchronize()
    with part("copy"):
        for name in away:
            outputs[name].copy_(targets[name])
