"""What the three stages of EDEN have in common: weights, specs, size, and where tensors lie.

Legend: K pairs of a window, Q latents of a pair, L = 4 * Q tokens of a frame, C channels.
"""

from __future__ import annotations

import logging
from abc import abstractmethod
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import replace
from functools import cached_property
from math import prod
from typing import ClassVar, Generic, TypeVar

import torch

from stages.base import Footprint, Item, Stage, TensorSpec, UserError
from stages.eden.architecture import Architecture
from stages.eden.checkpoint import read_architecture, read_tensors
from stages.eden.geometry import Geometry, Grid, make_grid
from stages.eden.layers import Weights
from stages.eden.networks import KERNELS, PLAIN, Kernels, choose_networks
from stages.eden.programs import Captured, Direct, Rehearsal, Tensors
from stages.eden.specs import shapes_of, window_specs
from stages.window import VideoFacts, WindowMeta

logger = logging.getLogger(__name__)

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
        self._reading: Future[dict[str, torch.Tensor]] | None = None  # begun, as is the next
        self._rehearsal: Rehearsal | None = None
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
        every = self._specs(facts)
        return {name: every[name] for name in self.writes}

    def footprint(self, facts: VideoFacts, device: str) -> Footprint:
        """Return about what one window takes; the factors are measured on the CPU."""
        specs, dtype = self._specs(facts), DTYPES[self._dtype]
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

    def begin_load(self, device: str) -> None:
        """Begin to read this stage's part of the weights."""
        self._reading = self._read()

    def _read(self) -> Future[dict[str, torch.Tensor]]:
        reader = ThreadPoolExecutor(1, "reader")
        reading = reader.submit(read_tensors, self._weights, self.prefixes)
        reader.shutdown(wait=False)  # it ends with that
        return reading

    def load(self, device: str) -> None:
        """Read this stage's part of the weights onto `device`.

        Raises:
            UserError: the weights are missing, or those of another model; or `kernels: triton`
                cannot be had there.
        """
        dtype, reading = DTYPES[self._dtype], self._reading or self._read()
        self._reading = None
        try:
            # Meanwhile the GPU is opened and a kernel compiled, which takes as long.
            self._device = torch.empty(0, device=device).device  # "cuda" becomes "cuda:0"
            with self._computing():
                self._networks = choose_networks(
                    self._kernels, self.architecture, self._device, dtype
                )
                self._network = self._build(Weights(reading.result(), self._device, dtype))
        finally:
            wait([reading])  # for its thread

    def begin_prepare(self, facts: VideoFacts, size: int) -> None:
        """Begin to compile kernels; without any there is nothing to begin."""
        if self._captures and not self._is_ready(facts, size):
            self._set_up(facts)
            with suppress(torch.OutOfMemoryError):  # `prepare` finds a size that fits
                self._rehearsal = self._begin_rehearsal(size)

    def prepare(self, facts: VideoFacts, size: int) -> int:
        """Make ready for frames of `facts`; return how many pairs, up to `size`, fit in memory.

        Raises:
            UserError: not even one pair does.
        """
        if self._ready_for and self._is_ready(facts, size):
            self._facts = facts  # of another job, and all that was made for the last one serves it
            return self._ready_for[2]
        asked = size
        if self._rehearsal is None or self._facts != facts:
            self._set_up(facts)
        while not self._fits(size):
            if size == 1:
                raise UserError(
                    f"one pair of {facts.width}x{facts.height} frames does not fit into the"
                    f" memory of {self._device}; use a smaller video or a larger GPU"
                )
            logger.warning("out of memory device=%s pairs=%d", self._device, size)
            size //= 2
        self._ready_for = shapes_of(facts), asked, size
        return size

    def _is_ready(self, facts: VideoFacts, size: int) -> bool:
        return self._ready_for is not None and self._ready_for[:2] == (shapes_of(facts), size)

    def _set_up(self, facts: VideoFacts) -> None:
        """Drop what was made for other facts, and make what any size needs."""
        self._drop_rehearsal()
        geometry = Geometry(facts.height, facts.width, self.architecture.patch)
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)  # what is dropped now may still be at work
        self._program = self._ready_for = None
        self._facts = facts
        self._grid = make_grid(geometry, self.architecture.hidden, self._device)

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
        self._drop_rehearsal()
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
        if self._rehearsal is None or self._rehearsal.size != size:
            self._drop_rehearsal()  # before as much is made again
            self._rehearsal = self._begin_rehearsal(size)
        rehearsal, self._rehearsal = self._rehearsal, None
        with self._computing():
            self._program = rehearsal.perform()
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)

    def _begin_rehearsal(self, size: int) -> Rehearsal:
        specs = self._specs(replace(self.facts, pairs_per_item=size))
        inputs = {name: self._zeros(specs[name]) for name in self.reads}
        outputs = {name: self._zeros(specs[name]) for name in self.writes}
        meta = WindowMeta(num_pairs=size, pts=tuple(range(size + 1)), cuts=(False,) * size)
        item = Item(index=0, attempt=0, meta=meta)
        with self._computing():
            made = self._made_for(outputs, item)
            buffers = inputs | {name: view.to(self._device) for name, view in made.items()}
            program = self._make_program(buffers, outputs)
        return Rehearsal(size, program, inputs, made, outputs, item.part)

    def _drop_rehearsal(self) -> None:
        begun, self._rehearsal = self._rehearsal, None
        if begun is not None:
            begun.program.wait()

    @property
    def _captures(self) -> bool:
        return self._device.type == "cuda" and self._networks is not PLAIN

    def _make_program(self, inputs: Tensors, outputs: Tensors) -> Direct | Captured:
        if self._captures:
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

    def _specs(self, facts: VideoFacts) -> dict[str, TensorSpec]:
        return window_specs(self.architecture, self._dtype, facts)

    def _zeros(self, spec: TensorSpec) -> torch.Tensor:
        dtype: torch.dtype = getattr(torch, spec.dtype)
        return torch.zeros(spec.shape, dtype=dtype, device=self._device)
