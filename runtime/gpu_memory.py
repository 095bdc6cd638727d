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
        self._opened: dict[str, OpenedPool] = {}
        self._pinned: dict[str, PinnedMemory] = {}
        self._is_told = False  # that something could not be pinned

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
            self._opened[address.name] = opened
            self._pointers[address.name] = opened.pointer
        if address.gpu != self._gpu.device.uuid:
            return None
        return gpu_bytes(self._pointers[address.name], address.num_slots * address.slot_bytes)

    def pin(self, mapped: MappedPool) -> MappedPool:
        """Make a pool in host memory fit for copies beside computing; return what to use of it.

        A GPU whose driver does not pin what is mapped read-only gets it mapped writable. One that
        does not pin that either copies all the same, but whoever queues a copy waits for it.
        """
        if self._register(mapped) or mapped.is_writable:
            return mapped
        mapped.close()
        mapped = MappedPool(mapped.address, writable=True)
        self._register(mapped)
        return mapped

    def _register(self, mapped: MappedPool) -> bool:
        """Pin it; return whether that was possible."""
        data, is_writable = mapped.array(), mapped.is_writable
        self._pointers[mapped.address.name] = data.ctypes.data
        try:
            pinned = PinnedMemory(
                self._gpu.device, data.ctypes.data, data.nbytes, read_only=not is_writable
            )
        except CudaError as error:
            name = mapped.address.name
            if not is_writable:
                logger.info("pool=%s mapped writable, to be pinned: %s", name, error)
            elif not self._is_told:
                logger.warning("unpinned pool=%s, copies wait for each other: %s", name, error)
                self._is_told = True
            return False
        self._pinned[mapped.address.name] = pinned
        return True

    def pointer(self, pool: str) -> int:
        """Return where a pool begins, as a stream's copies take it."""
        return self._pointers[pool]

    def close_pool(self, pool: str) -> None:
        """Close a pool of a dead worker, or unpin it; nothing that is queued needs it."""
        for kind in (self._opened, self._pinned):
            if (each := kind.pop(pool, None)) is not None:
                each.close()
        self._pointers.pop(pool, None)

    def close(self) -> None:
        """Wait for what is queued, then close all pools of others."""
        self._gpu.settle()
        for each in [*self._opened.values(), *self._pinned.values()]:
            each.close()
        self._opened.clear()
        self._pinned.clear()
