"""The runs of one job on a worker's GPU: queued, copied in and out beside each other, awaited.

A stage reads and writes its own GPU's memory only. What lies elsewhere, in host memory or on
another GPU, is copied into a staging slot first, and results that belong into host memory leave
from one, on streams of their own: while one item is computed the next one comes in and the last
one goes out. The main thread never waits for the GPU. Two stages of this worker that follow each
other need no wait in between either, since they are queued on one stream.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from ipc.cuda import CudaMemory, Event
from ipc.host import align
from ipc.records import TensorHandle
from runtime.gpu_memory import GpuPools
from runtime.gpu_trace import CopyTimes
from runtime.hosted import Hosted
from runtime.memory import JobMemory, tensor_bytes
from runtime.trace import Recorder
from runtime.views import Views, gpu_bytes
from runtime.worker_gpu import WorkerGpu, losing_the_gpu

# Runs that are queued and not done: one computes, the next one is copied in meanwhile, and the one
# after that lets a stage follow another one of the same worker without a gap.
DEPTH = 3

Handles = Mapping[str, TensorHandle]


@dataclass(slots=True)
class _Slot:
    """Where the copies of one run lie, and when they may be written again."""

    staged: dict[str, TensorHandle]
    arrived: Event  # what was to come is here
    computed: Event  # the run has read what came, and has written what will leave
    left: Event  # what was to leave is out


@dataclass(slots=True)
class Run:
    """One run of a stage, from the first copy in to the last copy out."""

    slot: _Slot
    staging: str  # whose slot it is
    inputs: dict[str, object]
    outputs: dict[str, object]
    leaving: dict[str, TensorHandle]  # where results go that are written to the slot


class _Staging:
    """The slots of one stage, taken in turn."""

    def __init__(self, gpu: WorkerGpu, hosted: Hosted, memory: JobMemory, stack: ExitStack) -> None:
        specs = memory.elsewhere((*hosted.reads, *hosted.writes))
        offsets, size = {}, 0
        for name, spec in specs.items():
            offsets[name] = size
            size += align(spec.nbytes)
        self.nbytes = size * DEPTH
        if size:
            memory_of_slots = CudaMemory(gpu.device, f"{hosted.name}.staging", self.nbytes)
            stack.callback(memory_of_slots.close)
            self._slot_bytes, self._start = size, memory_of_slots.pointer
            self._views = Views(
                gpu_bytes(self._start, self.nbytes), slot_bytes=size, library="torch"
            )
        self._slots = []
        for index in range(DEPTH):
            events = [Event(gpu.device) for _ in range(3)]
            for event in events:
                stack.callback(event.close)
            staged = {
                name: TensorHandle(
                    pool="", slot=index, offset=offsets[name], shape=spec.shape, dtype=spec.dtype
                )
                for name, spec in specs.items()
            }
            self._slots.append(_Slot(staged, *events))
        self._taken = 0

    def take(self) -> _Slot:
        """Return the slot that was taken longest ago."""
        self._taken += 1
        return self._slots[self._taken % DEPTH]

    def view(self, handle: TensorHandle) -> object:
        """Return the tensor of a staged handle."""
        return self._views.tensor(handle)

    def pointer(self, handle: TensorHandle) -> int:
        """Return its address."""
        return self._start + handle.slot * self._slot_bytes + handle.offset


class GpuQueue:
    """Belongs to the main thread, from a job's opening to its end."""

    def __init__(self, gpu: WorkerGpu) -> None:
        self._gpu = gpu
        self.pools = GpuPools(gpu)
        self._staging: dict[str, _Staging] = {}
        self._stack = ExitStack()

    def make_ready(
        self, memory: JobMemory, stages: Mapping[str, Hosted], trace: Recorder | None = None
    ) -> None:
        """Make the staging slots.

        Args:
            memory: of the job, opened with our `pools`.
            stages: of this worker.
            trace: gets the copies, if there is one.

        Raises:
            NoMemory: the GPU refused them.
        """
        self._memory = memory
        self._times = CopyTimes(self._gpu, trace) if trace and trace.is_on else None
        for name, hosted in stages.items():
            if self.takes(hosted):
                self._staging[name] = _Staging(self._gpu, hosted, memory, self._stack)

    @property
    def nbytes(self) -> int:
        """What our own pool and all staging slots take of the GPU."""
        own = self._gpu.pool.address if self._gpu.pool else None
        pool_bytes = own.num_slots * own.slot_bytes if own else 0
        return pool_bytes + sum(staging.nbytes for staging in self._staging.values())

    def takes(self, hosted: Hosted) -> bool:
        """Whether a stage of this worker computes on the GPU: those on torch's tensors do."""
        return hosted.stage.library == "torch"

    def has_room(self, num_under_way: int) -> bool:
        """Whether one more run may be queued."""
        return num_under_way < DEPTH

    @losing_the_gpu()
    def begin(self, hosted: Hosted, read: Handles, written: Handles, *, item: int = -1) -> Run:
        """Queue the copies in, and return the tensors for the stage; `end` must follow.

        Raises:
            GpuLost: an earlier run has failed, of which nobody knew yet.
        """
        gpu, staging = self._gpu, self._staging[hosted.name]
        slot = staging.take()
        run = Run(slot, hosted.name, {}, {}, {})
        gpu.copy_in.wait(slot.computed)
        comes = False
        for name in hosted.reads:
            if (handle := read.get(name)) is None:
                continue  # a sink closes the place of a failed item, which lacks some
            if self._memory.is_in_place(handle.pool):
                run.inputs |= self._memory.views(read, (name,), "torch")
                continue
            here = slot.staged[name]
            gpu.copy_in.copy(
                staging.pointer(here), self._memory.pointer(handle), tensor_bytes(handle)
            )
            run.inputs[name] = staging.view(here)
            comes = True
        slot.arrived.record(gpu.copy_in)
        if self._times is not None:
            self._times.begin(item, slot.arrived if comes else None)
        gpu.compute.wait(slot.arrived)
        gpu.compute.wait(slot.left)
        for name, handle in written.items():
            if self._memory.is_in_place(handle.pool):
                run.outputs |= self._memory.views(written, (name,), "torch")
            else:
                run.outputs[name] = staging.view(slot.staged[name])
                run.leaving[name] = handle
        return run

    @losing_the_gpu()
    def end(self, run: Run, what: object, *, failed: bool) -> None:
        """Queue the copies out, of a run that has not failed, and have `what` told when done.

        Raises:
            GpuLost: an earlier run has failed, of which nobody knew yet.
        """
        gpu, slot, staging = self._gpu, run.slot, self._staging[run.staging]
        slot.computed.record(gpu.compute)
        if not run.leaving or failed:
            gpu.after(slot.computed, what)
            return
        if self._times is not None:
            self._times.leave(slot.computed)
        gpu.copy_out.wait(slot.computed)
        for name, handle in run.leaving.items():
            gpu.copy_out.copy(
                self._memory.pointer(handle),
                staging.pointer(slot.staged[name]),
                tensor_bytes(handle),
            )
        slot.left.record(gpu.copy_out)
        gpu.after(slot.left, what)

    def done(self) -> Iterator[Any]:
        """Yield `what` of each run that has ended since the last call, in order.

        Raises:
            GpuLost: the GPU has failed at one, and cannot be used any more.
        """
        for what in self._gpu.done():
            if self._times is not None:
                self._times.end()
            yield what

    def close(self) -> None:
        """Wait for what is queued; give the staging slots up."""
        self._gpu.settle()
        self._stack.close()
