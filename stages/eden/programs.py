"""How a stage's computation is run: call by call, or as one CUDA graph.

Both take tensors of the stage's device as they are and copy those that lie elsewhere. With
everything on the device they only queue work on the current stream.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from contextvars import copy_context
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING
from weakref import WeakSet

import torch

from stages.base import Part

if TYPE_CHECKING:
    from torch.cuda import _POOL_HANDLE

Tensors = Mapping[str, torch.Tensor]
Compute = Callable[[Tensors, Tensors], None]
Compiling = Callable[[torch.device], AbstractContextManager[object]]


class Direct:
    """Calls the computation."""

    def __init__(self, compute: Compute, device: torch.device) -> None:
        self._compute = compute
        self._device = device

    def wait(self) -> None:
        """Nothing is compiled."""

    def capture(self) -> None:
        """Nothing is captured."""

    def run(self, inputs: Tensors, made: Tensors, outputs: Tensors, part: Part) -> None:
        """Write every element of `outputs`; see `Captured.run`."""
        here = {n: view.to(self._device, non_blocking=True) for n, view in made.items()}
        with _writable_on(self._device, outputs, part) as targets:
            self._compute({**_copied_to(self._device, inputs, part), **here}, targets)


class Captured:
    """Replays the computation as one CUDA graph, between buffers of its own.

    A graph reads and writes the same memory at every replay, and items lie in other memory each
    time; so inputs are copied in and outputs out, which costs some microseconds a pair.

    Made, it has begun to compile; `capture` waits for that. So several can compile side by side.

    Args:
        compute: what to capture; called twice with `inputs` and `outputs`, the first time to
            compile kernels and to let libraries choose theirs.
        inputs: the buffers to read; kept.
        outputs: the buffers to write; kept.
        device: a GPU.
        compiling: the first call is within it, and need not compute. It is entered and left in a
            context (`contextvars`) of its own: others may be open meanwhile.

    Raises:
        torch.OutOfMemoryError: it does not fit.
    """

    def __init__(
        self,
        compute: Compute,
        inputs: Tensors,
        outputs: Tensors,
        device: torch.device,
        *,
        compiling: Compiling = nullcontext,
    ) -> None:
        self._compute, self._inputs, self._outputs = compute, inputs, outputs
        self._device = device
        self._place = graph_place(device)
        self.graph = torch.cuda.CUDAGraph()
        self._place.follow_in(torch.cuda.current_stream(device))  # which made the buffers
        self._place.follow_in(self._place.stream)
        self._compiling, self._context = ExitStack(), copy_context()
        try:
            self._context.run(self._begin, compiling)
        except BaseException:
            self.wait()
            raise

    def _begin(self, compiling: Compiling) -> None:
        self._compiling.enter_context(compiling(self._device))
        with torch.cuda.stream(self._place.stream):
            self._compute(self._inputs, self._outputs)

    def wait(self) -> None:
        """Wait until all is compiled. Whoever drops this without `capture` has to."""
        self._context.run(self._compiling.close)

    def capture(self) -> None:
        """Make the graph.

        Raises:
            torch.OutOfMemoryError: it does not fit.
        """
        self.wait()
        self._place.follow_in(self._place.stream)  # what has run since may have used its memory
        # First gives back to the GPU what the call left in the allocator's hands. Other threads
        # may go on calling CUDA.
        with torch.cuda.graph(
            self.graph,
            pool=self._place.pool(),
            stream=self._place.stream,
            capture_error_mode="thread_local",
        ):
            self._compute(self._inputs, self._outputs)
        self._place.keep(self)

    def run(self, inputs: Tensors, made: Tensors, outputs: Tensors, part: Part) -> None:
        """Write every element of `outputs`.

        Args:
            inputs: of the shapes of the buffers; may lie anywhere.
            made: more of them, in pinned memory that the stage itself made.
            outputs: likewise anywhere.
            part: is told of copies from and to other memory, apart.
        """
        self._place.follow_in(torch.cuda.current_stream(self._device))
        with _told(part, self._device, inputs):
            for name, view in inputs.items():
                _copy(self._inputs[name], view)
        for name, view in made.items():
            _copy(self._inputs[name], view, non_blocking=True)
        self.graph.replay()
        if not _all_on(self._device, outputs):  # the copy's own time is to be told
            torch.cuda.current_stream(self._device).synchronize()
        with _told(part, self._device, outputs):
            for name, view in outputs.items():
                _copy(view, self._outputs[name])


@dataclass(frozen=True, slots=True)
class Rehearsal:
    """A program, and what it is to run on first."""

    size: int  # in pairs
    program: Direct | Captured
    inputs: Tensors
    made: Tensors
    outputs: Tensors
    part: Part

    def perform(self) -> Direct | Captured:
        """Finish the program, run it, and return it."""
        self.program.capture()
        self.program.run(self.inputs, self.made, self.outputs, self.part)
        return self.program


class GraphPlace:
    """What all graphs of one GPU and process share: a stream to capture on, and scratch memory.

    A stage needs its scratch memory only while it runs, and stages of a process take turns; so
    all graphs have one memory pool. None keeps anything in it between two runs.
    """

    def __init__(self, device: torch.device) -> None:
        self.stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self._kept: WeakSet[Captured] = WeakSet()
        self._last = torch.cuda.current_stream(device)

    def keep(self, captured: Captured) -> None:
        """Share the memory of this one with later ones, as long as it lives."""
        self._kept.add(captured)

    def pool(self) -> _POOL_HANDLE:
        """Return the pool of the graphs that live, or a new one where none does."""
        for captured in self._kept:
            return captured.graph.pool()
        return torch.cuda.graph_pool_handle()

    def follow_in(self, stream: torch.cuda.Stream) -> None:
        """Let what `stream` is given next wait for what used the scratch memory last."""
        if stream != self._last:
            stream.wait_stream(self._last)
        self._last = stream


@cache
def graph_place(device: torch.device) -> GraphPlace:
    """Return the place of this GPU's graphs: there is one a process, as there is one memory."""
    return GraphPlace(device)


def _copy(target: torch.Tensor, source: torch.Tensor, *, non_blocking: bool = False) -> None:
    if target.shape != source.shape:  # copy_ would repeat the source
        raise ValueError(f"shape {list(source.shape)}, but prepared for {list(target.shape)}")
    target.copy_(source, non_blocking=non_blocking)


def _all_on(device: torch.device, tensors: Tensors) -> bool:
    return all(view.device == device for view in tensors.values())


@contextmanager
def _told(part: Part, device: torch.device, tensors: Tensors) -> Iterator[None]:
    """Tell of the block as a copy if one of `tensors` lies elsewhere."""
    with nullcontext() if _all_on(device, tensors) else part("copy"):
        yield


def _copied_to(device: torch.device, inputs: Tensors, part: Part) -> Tensors:
    """Return the inputs on `device`; from memory of the host `to` returns when it has read it."""
    with _told(part, device, inputs):
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
