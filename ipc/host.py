"""Pools in shared host memory: memfds, which have no names and vanish with their last holder.

One process makes a pool and holds its descriptor; others open it through /proc/PID/fd, the writer
for writing, all readers read-only, so that a stage that writes its inputs is stopped at once and
not found out by the picture. A memfd knows no limit: pages that the host does not have mean the
OOM killer, so whoever makes one compares it with the memory that is there first.
"""

from __future__ import annotations

import errno
import mmap
import os
from types import TracebackType

import numpy as np
from numpy.typing import NDArray

from ipc.errors import Closed, NoMemory, ProtocolError
from ipc.records import PoolAddress

_MEMFD = "/memfd:"  # how the kernel shows one
ALIGN_BYTES = 256  # what vectorised copies and cudaHostRegister both like


def align(nbytes: int) -> int:
    """Return the smallest multiple of ALIGN_BYTES that is >= `nbytes`."""
    return -(-nbytes // ALIGN_BYTES) * ALIGN_BYTES


class HostPool:
    """The maker's end: a memfd whose pages are all there."""

    def __init__(self, name: str, *, owner: str, num_slots: int, slot_bytes: int) -> None:
        """Make the memory.

        Raises:
            NoMemory: the host refused it.
        """
        self._fd = os.memfd_create(name, os.MFD_CLOEXEC)
        self.address = PoolAddress(
            name=name,
            owner=owner,
            num_slots=num_slots,
            slot_bytes=slot_bytes,
            pid=os.getpid(),
            fd=self._fd,
        )
        try:
            os.posix_fallocate(self._fd, 0, num_slots * slot_bytes)
        except BaseException as error:  # an interruption too: this can take seconds
            self.close()
            if not isinstance(error, OSError) or error.errno not in (errno.ENOSPC, errno.ENOMEM):
                raise
            size = num_slots * slot_bytes / 2**20
            raise NoMemory(f"pool {name}: the host refused {size:.0f} MiB") from error

    def close(self) -> None:
        """Give up the descriptor; the pages go with the last mapping. Safe to call twice."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


class MappedPool:
    """A pool as one process sees it: its bytes, mapped once and kept."""

    def __init__(self, address: PoolAddress, *, writable: bool) -> None:
        """Map the pool.

        Raises:
            ProtocolError: what lies at the address is not the pool it names.
        """
        self.address, self.is_writable = address, writable
        nbytes = address.num_slots * address.slot_bytes
        path = f"/proc/{address.pid}/fd/{address.fd}"
        try:
            found = os.readlink(path)
            if not found.startswith(_MEMFD):  # a file, or a pipe that would hold up who opens it
                raise ProtocolError(f"pool {address.name}: {path} is {found!r}, no pool")
            fd = os.open(path, (os.O_RDWR if writable else os.O_RDONLY) | os.O_CLOEXEC)
        except OSError as error:
            raise ProtocolError(f"pool {address.name}: cannot open {path}: {error}") from error
        try:
            if os.fstat(fd).st_size != nbytes:
                raise ProtocolError(
                    f"pool {address.name}: {path} has {os.fstat(fd).st_size} bytes, not {nbytes}"
                )
            protection = mmap.PROT_READ | (mmap.PROT_WRITE if writable else 0)
            self._mmap: mmap.mmap | None = mmap.mmap(fd, nbytes, mmap.MAP_SHARED, protection)
        finally:
            os.close(fd)

    def array(self) -> NDArray[np.uint8]:
        """Return all bytes of the pool as one array, which must be gone before `close`."""
        if self._mmap is None:
            raise Closed(f"pool {self.address.name} is closed")
        return np.frombuffer(self._mmap, np.uint8)

    def close(self) -> None:
        """Unmap the pool. Safe to call twice.

        Raises:
            BufferError: somebody still has a view of it.
        """
        if self._mmap is not None:
            self._mmap.close()
            self._mmap = None

    def __enter__(self) -> MappedPool:
        """Return the pool."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Unmap the pool."""
        self.close()
