"""What the three stages of EDEN have in common: weights, specs, size, and where tensors lie.

Legend: K pairs of a window, Q latents of a pair, L = 4 * Q tokens of a frame, C channels.
"""

from __future__ import annotations

import logging
from abc import abstractmethod
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from functools import cached_property
from math import prod
from typing import ClassVar, Generic, TypeVar

import torch

from stages.base import Footprint, Item, Job, Stage, TensorSpec, UserError
from stages.eden.architecture import Architecture
from stages.eden.checkpoint import read_architecture, read_tensors
from stages.eden.geometry import Geometry, Grid, make_grid
from stages.eden.layers import Weights
from stages.eden.networks import KERNELS, PLAIN, Kernels, choose_networks
from stages.eden.programs import Captured, Direct, Tensors
from stages.window import VideoFacts, WindowMeta

logger = logging.getLogger(__name__)

NetworkT = TypeVar("NetworkT")

_NO_JOB = Job(input="", output="", work_dir="")

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
            latents and Euler steps are float32 always, and bfloat16 is float16 inside the decoder;
            see there. It is written out, as the tokens between two stages have it: no stage looks
            at a GPU to choose it.
        kernels: `torch` computes with torch alone, everywhere, and is the definition; `triton`
            with fused kernels and one CUDA graph a stage, or refuses; `auto` takes `triton` on a
            GPU where it can, else `torch`, and says in the log why.

    Raises:
        UserError: `dtype` or `kernels` is none of these.
    """

    library = "torch"
    facts_type = VideoFacts
    meta_type = WindowMeta
    prefixes: ClassVar[tuple[str, ...]]  # of the tensors that this stage loads

    def __init__(self, *, weights: str, dtype: str = "float32", kernels: Kernels = "auto") -> None:
        if dtype not in DTYPES:
            raise UserError(f"dtype {dtype!r} is unknown; write one of {', '.join(DTYPES)}")
        if kernels not in KERNELS:
            raise UserError(f"kernels {kernels!r} are unknown; write one of {', '.join(KERNELS)}")
        self._weights = weights
        self._dtype = dtype
        self._kernels = kernels
        self._device = torch.device("cpu")
        self._networks = PLAIN
        self._program: Direct | Captured | None = None
        self._network: NetworkT | None = None
        self._facts: VideoFacts | None = None
        self._ready_for: tuple[VideoFacts, int, int] | None = None  # shapes, size asked, size found
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
    def _compute(self, inputs: Tensors, outputs: Tensors) -> None:
        """Write every element of `outputs`; all tensors lie on the stage's device."""

    def _made(self, outputs: Tensors, item: Item[WindowMeta]) -> Tensors:
        """Return more inputs of `_compute`, which this stage makes on the CPU."""
        return {}

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
            UserError: the weights are missing, or those of another model; or `kernels: triton`
                cannot be had there.
        """
        dtype = DTYPES[self._dtype]
        with ThreadPoolExecutor(1) as reader:
            tensors = reader.submit(read_tensors, self._weights, self.prefixes)
            # Meanwhile the GPU is opened and a kernel compiled, which takes as long.
            self._device = torch.empty(0, device=device).device  # "cuda" becomes "cuda:0"
            with self._computing():
                self._networks = choose_networks(
                    self._kernels, self.architecture, self._device, dtype
                )
                self._network = self._build(Weights(tensors.result(), self._device, dtype))

    def prepare(self, facts: VideoFacts, size: int) -> int:
        """Make ready for frames of `facts`; return how many pairs, up to `size`, fit in memory.

        Raises:
            UserError: not even one pair does.
        """
        shapes = replace(facts, job=_NO_JOB, num_frames=0)
        if self._ready_for and self._ready_for[:2] == (shapes, size):
            self._facts = facts  # of another job, and all that was made for the last one serves it
            return self._ready_for[2]
        geometry = Geometry(facts.height, facts.width, self.architecture.patch)
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)  # what is dropped now may still be at work
        self._program = self._ready_for = None
        self._facts, asked = facts, size
        self._grid = make_grid(geometry, self.architecture.hidden, self._device)
        while not self._fits(size):
            if size == 1:
                raise UserError(
                    f"one pair of {facts.width}x{facts.height} frames does not fit into the"
                    f" memory of {self._device}; use a smaller video or a larger GPU"
                )
            logger.warning("out of memory device=%s pairs=%d", self._device, size)
            size //= 2
        self._ready_for = shapes, asked, size
        return size

    def run(self, inputs: Tensors, outputs: Tensors, item: Item[WindowMeta]) -> WindowMeta:
        """Write this stage's tensors of the window; `inputs` and `outputs` may lie anywhere.

        On a GPU with all of them there this queues the work on the current stream and returns.

        Raises:
            torch.OutOfMemoryError: more was put on this GPU since `prepare`.
        """
        assert self._program is not None, "`prepare` comes first"
        written = {name: outputs[name] for name in self.writes}
        read = {name: inputs[name] for name in self.reads}
        with self._computing():
            self._program.run(read, self._made_for(written, item), written, item.part)
        return item.meta

    def close(self) -> None:
        """Let go of the weights."""
        self._program = self._ready_for = None
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
        """Make the program for windows of `size` pairs, and run it on black frames."""
        specs = self._every_spec(replace(self.facts, pairs_per_item=size))
        inputs = {name: self._zeros(specs[name]) for name in self.reads}
        outputs = {name: self._zeros(specs[name]) for name in self.writes}
        meta = WindowMeta(num_pairs=size, pts=tuple(range(size + 1)), cuts=(False,) * size)
        item = Item(index=0, attempt=0, meta=meta)
        with self._computing():
            made = self._made_for(outputs, item)
            buffers = inputs | {name: view.to(self._device) for name, view in made.items()}
            self._program = self._make_program(buffers, outputs)
            self._program.run(inputs, made, outputs, item.part)
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)

    def _make_program(self, inputs: Tensors, outputs: Tensors) -> Direct | Captured:
        if self._device.type == "cuda" and self._networks is not PLAIN:
            compiling = self._networks.compiling
            return Captured(self._compute, inputs, outputs, self._device, compiling=compiling)
        return Direct(self._compute, self._device)

    def _made_for(self, outputs: Tensors, item: Item[WindowMeta]) -> Tensors:
        made = self._made(outputs, item)
        if self._device.type != "cuda":
            return made
        # Pinned, so that copying does not wait; torch keeps the memory until it has been copied.
        return {name: view.pin_memory() for name, view in made.items()}

    @contextmanager
    def _computing(self) -> Iterator[None]:
        is_cuda = self._device.type == "cuda"
        with torch.inference_mode(), torch.cuda.device(self._device) if is_cuda else nullcontext():
            yield

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
