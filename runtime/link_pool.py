"""The pool in the middle of a link that the doctor tries, as one end has it open."""

from __future__ import annotations

from ipc.cuda import OpenedPool
from ipc.host import MappedPool
from runtime.gpu_memory import GpuPools
from runtime.link_messages import OpenLink
from runtime.worker_gpu import WorkerGpu


class LinkPool:
    """The pool that items go through, where it is not our own."""

    def __init__(self, gpu: WorkerGpu, command: OpenLink) -> None:
        """Open it.

        Raises:
            IpcError: it cannot be opened, or not be pinned.
        """
        self.address, self.is_writable = command.pool, command.writable
        self.stream = gpu.copy_out if command.writable else gpu.copy_in
        self._opened: OpenedPool | None = None
        if command.pool.gpu:
            self._opened = OpenedPool(gpu.device, command.pool)
            self._start = self._opened.pointer
        else:
            mapped = MappedPool(command.pool, writable=command.writable)
            self._pinned = GpuPools(gpu)
            self._mapped = self._pinned.pin(mapped)
            self._start = self._pinned.pointer(command.pool.name)

    def pointer(self, slot: int) -> int:
        """Return where a slot begins."""
        return self._start + slot * self.address.slot_bytes

    def close(self) -> None:
        """Close it; all copies are done."""
        if self._opened is not None:
            self._opened.close()
        else:
            self._pinned.close()
            self._mapped.close()
