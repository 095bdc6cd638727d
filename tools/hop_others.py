"""What else gets an array from process to process: the other contenders of tools/bench_hop.py.

Each as its users would write it: a stage makes a new array for an item, fills it and sends it.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from importlib.util import find_spec
from multiprocessing.context import SpawnContext
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from tools.hop_pair import SLOTS, End, Stamps, Task, read, write

PROJECT = Path(__file__).resolve().parent.parent
RAY_STORE_BYTES = 2 * 2**30


class PickleQueue:
    """`multiprocessing.Queue` of numpy arrays."""

    name: ClassVar[str] = "pickle queue"
    # tobytes, the buffer of the pickle, the pipe, the parts read from it, the buffer they are put
    # together in, and the bytes that the array then lies in
    copies: ClassVar[int] = 6
    how: ClassVar[str] = "multiprocessing.Queue of numpy arrays: pickled, through a pipe"
    wants_pool: ClassVar[bool] = False

    def __init__(self, mp_context: SpawnContext, _folder: Path) -> None:
        self._queue = mp_context.Queue()
        self._windows = {slots: mp_context.Semaphore(slots) for slots in (1, SLOTS)}

    @staticmethod
    def missing(_nbytes: int) -> str:
        """Nothing."""
        return ""

    @contextmanager
    def producer(self) -> Iterator[End]:
        """Make an item, write, put."""
        yield self._produce

    @contextmanager
    def consumer(self) -> Iterator[End]:
        """Get, read."""
        yield self._consume

    def _new(self, nbytes: int) -> tuple[Any, NDArray[np.uint8]]:
        """Return what is sent, and its bytes."""
        array = np.empty(nbytes, np.uint8)
        return array, array

    def _bytes(self, sent: Any) -> Any:  # noqa: ANN401
        return sent

    def _produce(self, task: Task) -> Stamps:
        window = self._windows[task.slots]
        for item in task.items():
            window.acquire()
            sent, array = self._new(task.nbytes)
            if task.touch:
                write(array, item)
            self._queue.put((item, time.monotonic_ns(), sent))
        self._queue.put(None)
        return []

    def _consume(self, task: Task) -> Stamps:
        stamps: Stamps = []
        window = self._windows[task.slots]
        while (taken := self._queue.get()) is not None:
            item, sent_at, sent = taken
            if task.touch:
                read(self._bytes(sent), item)
            stamps.append((sent_at, time.monotonic_ns()))
            del taken, sent
            window.release()
        return stamps


class TorchQueue(PickleQueue):
    """`torch.multiprocessing.Queue`: the same queue, which torch has taught to send tensors."""

    name: ClassVar[str] = "torch queue"
    copies: ClassVar[int] = 1
    how: ClassVar[str] = "torch.multiprocessing.Queue of tensors: each moved to new shared memory"

    @staticmethod
    def missing(nbytes: int) -> str:
        """Need torch, and room in /dev/shm, without which a write there is a SIGBUS."""
        if find_spec("torch") is None:
            return "torch is not installed"
        free = shutil.disk_usage("/dev/shm").free
        if free < 2 * SLOTS * nbytes:
            return f"/dev/shm has {free / 2**20:.0f} MiB free, and 8 items of this size do not fit"
        return ""

    @contextmanager
    def producer(self) -> Iterator[End]:
        """Make a tensor, write, put."""
        import torch.multiprocessing  # noqa: F401 - registers how tensors are sent

        yield self._produce

    @contextmanager
    def consumer(self) -> Iterator[End]:
        """Get, read."""
        import torch.multiprocessing  # noqa: F401

        yield self._consume

    def _new(self, nbytes: int) -> tuple[Any, NDArray[np.uint8]]:
        import torch

        tensor = torch.empty(nbytes, dtype=torch.uint8)
        return tensor, tensor.numpy()

    def _bytes(self, sent: Any) -> Any:  # noqa: ANN401
        return sent.numpy()


class RayStore:
    """Ray's object store: `ray.put`, and an actor that is called with the reference."""

    name: ClassVar[str] = "ray"
    copies: ClassVar[int] = 1
    how: ClassVar[str] = "ray.put copies into the object store, an actor reads it there"
    wants_pool: ClassVar[bool] = False

    def __init__(self, _mp_context: SpawnContext, _folder: Path) -> None:
        pass

    @staticmethod
    def missing(_nbytes: int) -> str:
        """Need ray."""
        return "" if find_spec("ray") else "ray is not installed (pip install ray)"

    @contextmanager
    def producer(self) -> Iterator[End]:
        """Start Ray, with the receiving actor in it."""
        os.environ["RAY_USAGE_STATS_ENABLED"] = "0"  # a benchmark calls nobody
        import ray

        ray.init(
            num_cpus=2,
            include_dashboard=False,
            log_to_driver=False,
            configure_logging=False,
            object_store_memory=RAY_STORE_BYTES,
            runtime_env={"env_vars": {"PYTHONPATH": str(PROJECT)}},
        )
        try:
            reader = ray.remote(_RayReader).remote()
            yield partial(self._produce, ray, reader)
        finally:
            ray.shutdown()

    @contextmanager
    def consumer(self) -> Iterator[End]:
        """Do nothing: the actor is a process of Ray's own."""
        yield lambda _task: []

    def _produce(self, ray: Any, reader: Any, task: Task) -> Stamps:  # noqa: ANN401
        under_way: list[Any] = []
        for item in task.items():
            if len(under_way) == task.slots:
                _done, under_way = ray.wait(under_way)
            array = np.empty(task.nbytes, np.uint8)
            if task.touch:
                write(array, item)
            sent_at = time.monotonic_ns()
            under_way.append(reader.take.remote(item, sent_at, ray.put(array), task.touch))
        stamps: Stamps = ray.get(reader.stamps.remote())
        return stamps


class _RayReader:
    """The actor."""

    def __init__(self) -> None:
        self._stamps: Stamps = []

    def take(self, item: int, sent_at: int, array: NDArray[np.uint8], touch: bool) -> None:
        if touch:
            read(array, item)
        self._stamps.append((sent_at, time.monotonic_ns()))

    def stamps(self) -> Stamps:
        stamps, self._stamps = self._stamps, []
        return stamps
