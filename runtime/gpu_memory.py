"""What a job's pools are to one GPU: opened where they lie, or pinned for copies."""

from __future__ import annotations

import logging

from ipc.cuda import CudaError, OpenedPool, PinnedMemory
from ipc.host import MappedPool
from ipc.records import PoolAddress
from runtime.views import gpu_bytes
from runtime.worker_gpu import WorkerGpu

logger = logging.getLogger(__name__)


class GpuPools:
    """Opened once per job. Belongs to the main thread."""

    def __init__(self, gpu: WorkerGpu) -> None:
        self._gpu = gpu
        self._pointers: dict[str, int] = {}
        self._opened: list[OpenedPool] = []
        self._pinned: list[PinnedMemory] = []

    def open(self, address: PoolAddress) -> object | None:
        """Open a pool on a GPU; return all its bytes as a tensor if it lies on ours.

        Raises:
            CudaError: it cannot be opened.
        """
        own = self._gpu.pool
        if own is not None and own.address == address:
            self._pointers[address.name] = own.pointer
        else:
            opened = OpenedPool(self._gpu.device, address)
            self._opened.append(opened)
            self._pointers[address.name] = opened.pointer
        if address.gpu != self._gpu.device.uuid:
            return None
        return gpu_bytes(self._pointers[address.name], address.num_slots * address.slot_bytes)

    def pin(self, mapped: MappedPool) -> MappedPool:
        """Make a pool in host memory fit for copies beside computing; return what to use of it.

        A GPU whose driver does not pin what is mapped read-only gets it mapped writable.
        """
        try:
            self._register(mapped)
        except CudaError as error:
            if mapped.is_writable:
                raise
            logger.info("pool=%s mapped writable, to be pinned: %s", mapped.address.name, error)
        else:
            return mapped
        mapped.close()  # only now: the error knew who had a view of it
        mapped = MappedPool(mapped.address, writable=True)
        self._register(mapped)
        return mapped

    def _register(self, mapped: MappedPool) -> None:
        data = mapped.array()
        pinned = PinnedMemory(
            self._gpu.device, data.ctypes.data, data.nbytes, read_only=not mapped.is_writable
        )
        self._pinned.append(pinned)
        self._pointers[mapped.address.name] = data.ctypes.data

    def pointer(self, pool: str) -> int:
        """Return where a pool begins, as a stream's copies take it."""
        return self._pointers[pool]

    def close(self) -> None:
        """Wait for what is queued, then close all pools of others."""
        self._gpu.settle()
        for each in [*self._opened, *self._pinned]:
            each.close()
        self._opened.clear()
        self._pinned.clear()
