"""GPUs without a GPU: the functions of NVIDIA's driver that ipc/ calls, with its refusals.

A GPU's memory is a memfd, so another process really opens it, and an address is a real address. A
stream is a thread that runs what is queued in order, later than it was queued. What is made needs a
current context in the calling thread, as with the real driver. The driver of a process without it,
by FAKE_CUDA_GPUS (how many there are), CUDA_VISIBLE_DEVICES, FAKE_CUDA_REFUSES (functions that it
does not support) and FAKE_CUDA_SLOW_S (how long copies and kernels may take).
"""

import ctypes
import mmap
import os
import threading
from functools import partial
from types import SimpleNamespace

from tests.ipc.fake_gpu import (
    HANDLE,
    POISON,
    CUresult,
    Handle,
    Refused,
    Stream,
    copy,
    dawdle,
    fake_uuid,
    function,
    is_writable,
    visible,
)

GPU_BYTES = 64 * 2**20


class FakeDriver:
    """The driver as one process sees it, in place of the module `cuda.bindings.driver`."""

    CUipcMemHandle = Handle
    CU_MEMHOSTREGISTER_READ_ONLY = 8
    CUipcMem_flags = SimpleNamespace(CU_IPC_MEM_LAZY_ENABLE_PEER_ACCESS=1)
    CUstream_flags = SimpleNamespace(CU_STREAM_NON_BLOCKING=1)
    CUevent_flags = SimpleNamespace(CU_EVENT_BLOCKING_SYNC=1, CU_EVENT_DISABLE_TIMING=2)
    CUdevice_attribute = SimpleNamespace(CU_DEVICE_ATTRIBUTE_READ_ONLY_HOST_REGISTER_SUPPORTED=113)

    def __init__(self):
        number = int(os.environ.get("FAKE_CUDA_GPUS", "1"))
        self._visible = visible([fake_uuid(i) for i in range(number)])
        self.refuses = set(os.environ.get("FAKE_CUDA_REFUSES", "").split(","))
        self.thread = threading.local()
        self.lost = None  # a status that every call has from now on
        self.can_pin_read_only = "read-only pinning" not in self.refuses
        self.memory = {}  # what was allocated, by address: (memfd, mmap)
        self.opened = {}  # of other processes, by address: [handle, mmap, times opened]
        self.registered = {}  # address: bytes
        self.streams, self.events = {}, {}  # by handle; an event's value is its latest mark
        self.retained = 0
        self._threads = []
        self._last = 0

    def left(self):
        """Return what was not given back."""
        kinds = ("memory", "opened", "registered", "streams", "events", "retained")
        return {kind: value for kind in kinds if (value := getattr(self, kind))}

    def lose(self, name):
        """Let every call fail from now on, and those that wait; all that was made is gone."""
        self.lost = CUresult[f"CUDA_ERROR_{name}"]
        for mark in self.events.values():
            mark.set()
        for stream in self.streams.values():
            stream.gate.set()
            stream.queue.put(None)
        self.join()
        for fd, _memory in self.memory.values():
            os.close(fd)
        for made in (self.memory, self.opened, self.registered, self.streams, self.events):
            made.clear()
        self.retained = 0

    def join(self):
        """Wait until the streams that were destroyed have run what was queued."""
        for thread in self._threads:
            thread.join(timeout=30)
            assert not thread.is_alive(), "a fake stream was never destroyed, or stands still"

    def _new(self):
        self._last += 8
        return self._last

    @function(needs_context=False)
    def cuInit(self, flags):
        if not self._visible:
            raise Refused("NO_DEVICE")

    def cuGetErrorString(self, status):
        return CUresult.CUDA_SUCCESS, f"meaning of {int(status)}".encode()

    @function(needs_context=False)
    def cuDeviceGet(self, ordinal):
        if not 0 <= ordinal < len(self._visible):
            raise Refused("INVALID_DEVICE")
        return ordinal

    @function(needs_context=False)
    def cuDeviceGetName(self, length, device):
        return b"Fake GPU".ljust(length, b"\0")

    @function(needs_context=False)
    def cuDeviceGetUuid(self, device):
        return SimpleNamespace(bytes=self._visible[device].bytes)

    @function(needs_context=False)
    def cuDeviceGetAttribute(self, attribute, device):
        return int(self.can_pin_read_only)

    @function(needs_context=False)
    def cuDevicePrimaryCtxRetain(self, device):
        self.retained += 1
        return f"context {device}"

    @function(needs_context=False)
    def cuDevicePrimaryCtxRelease(self, device):
        self.retained -= 1

    @function(needs_context=False)
    def cuCtxSetCurrent(self, context):
        self.thread.context = context

    def cuMemGetInfo(self):
        return CUresult.CUDA_SUCCESS, self._free(), GPU_BYTES

    def _free(self):
        return GPU_BYTES - sum(len(memory) for _fd, memory in self.memory.values())

    @function(needs_context=True)
    def cuMemAlloc(self, nbytes):
        if nbytes <= 0:
            raise Refused("INVALID_VALUE")
        if nbytes > self._free():
            raise Refused("OUT_OF_MEMORY")
        fd = os.memfd_create("fake-gpu")
        os.truncate(fd, nbytes)
        memory = mmap.mmap(fd, nbytes)
        address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
        ctypes.memset(address, POISON, nbytes)
        self.memory[address] = fd, memory
        return address

    @function(needs_context=True)
    def cuMemFree(self, address):
        if address not in self.memory:
            raise Refused("INVALID_VALUE")
        self._settle()
        fd, memory = self.memory.pop(address)
        memory.close()
        os.close(fd)

    def _settle(self):
        """Wait for all work on the GPU, also of streams that were destroyed with some queued."""
        living = [stream.thread for stream in self.streams.values()]
        for stream in self.streams.values():
            self._mark(stream).wait()
        for thread in self._threads:
            if thread not in living:
                thread.join()

    @function(needs_context=True)
    def cuIpcGetMemHandle(self, address):
        fd, memory = self.memory[address]
        handle = Handle()
        ctypes.memmove(handle.getPtr(), self._packed(fd, memory), 64)
        return handle

    def _packed(self, fd, memory):
        return HANDLE.pack(os.getpid(), fd, len(memory), self._visible[0].bytes)

    @function(needs_context=True)
    def cuIpcOpenMemHandle(self, handle, flags):
        data = ctypes.string_at(handle.getPtr(), 64)
        pid, fd, nbytes, _gpu = HANDLE.unpack(data)
        if pid == os.getpid():
            raise Refused("INVALID_CONTEXT")
        for address, known in self.opened.items():
            if known[0] == data:
                known[2] += 1
                return address
        try:
            here = os.open(f"/proc/{pid}/fd/{fd}", os.O_RDWR)
        except OSError as error:
            raise Refused("INVALID_VALUE") from error
        memory = mmap.mmap(here, nbytes)
        os.close(here)
        address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
        self.opened[address] = [data, memory, 1]
        return address

    @function(needs_context=True)
    def cuIpcCloseMemHandle(self, address):
        if address not in self.opened:
            raise Refused("INVALID_VALUE")
        self.opened[address][2] -= 1
        if not self.opened[address][2]:
            self._settle()
            self.opened.pop(address)[1].close()

    @function(needs_context=True)
    def cuMemHostRegister(self, address, nbytes, flags):
        if address in self.registered:
            raise Refused("HOST_MEMORY_ALREADY_REGISTERED")
        read_only = bool(flags & self.CU_MEMHOSTREGISTER_READ_ONLY)
        if read_only and not self.can_pin_read_only:
            raise Refused("NOT_SUPPORTED")
        if not (read_only or is_writable(address)):
            raise Refused("INVALID_VALUE")
        self.registered[address] = nbytes

    @function(needs_context=True)
    def cuMemHostUnregister(self, address):
        if self.registered.pop(address, None) is None:
            raise Refused("HOST_MEMORY_NOT_REGISTERED")

    @function(needs_context=True)
    def cuStreamCreateWithPriority(self, flags, priority):
        stream, handle = Stream(), self._new()
        stream.thread = threading.Thread(target=stream.run, name="fake-stream", daemon=True)
        stream.gate.set()
        stream.thread.start()
        self._threads.append(stream.thread)
        self.streams[handle] = stream
        return handle

    def _stream(self, handle):
        if handle not in self.streams:
            raise Refused("INVALID_HANDLE")
        return self.streams[handle]

    @function(needs_context=True)
    def cuStreamDestroy(self, handle):
        self._stream(handle).queue.put(None)
        del self.streams[handle]

    @function(needs_context=True)
    def cuStreamWaitEvent(self, handle, event, flags):
        stream = self._stream(handle)
        stream.queue.put(partial(stream.wait, self.events[event]))

    @function(needs_context=True)
    def cuMemcpyAsync(self, target, source, nbytes, handle):
        self._stream(handle).queue.put(partial(copy, target, source, nbytes))

    def launch(self, handle, work):
        """Queue what a kernel does."""
        stream = self._stream(handle)
        stream.queue.put(dawdle)
        stream.queue.put(work)

    def can_compute_on(self, address, nbytes):
        """Whether this memory lies on our GPU: not in the host's, nor on another one."""
        here = {start: len(memory) for start, (_fd, memory) in self.memory.items()}
        for start, (handle, memory, _times) in self.opened.items():
            if HANDLE.unpack(handle)[-1] == self._visible[0].bytes:
                here[start] = len(memory)
        return any(s <= address and address + nbytes <= s + size for s, size in here.items())

    def cuStreamSynchronize(self, handle):
        self._mark(self._stream(handle)).wait()
        return (self.lost or CUresult.CUDA_SUCCESS,)

    def _mark(self, stream):
        mark = threading.Event()
        stream.queue.put(mark.set)
        return mark

    @function(needs_context=True)
    def cuEventCreate(self, flags):
        handle, mark = self._new(), threading.Event()
        mark.set()
        self.events[handle] = mark
        return handle

    @function(needs_context=True)
    def cuEventRecord(self, event, handle):
        self.events[event] = self._mark(self._stream(handle))

    @function(needs_context=True)
    def cuEventQuery(self, event):
        if not self.events[event].is_set():
            raise Refused("NOT_READY")

    def cuEventSynchronize(self, event):
        if getattr(self.thread, "context", None) is None:
            return (CUresult.CUDA_ERROR_INVALID_CONTEXT,)
        if self.lost is None:
            self.events[event].wait()
        return (self.lost or CUresult.CUDA_SUCCESS,)

    @function(needs_context=True)
    def cuEventDestroy(self, event):
        if self.events.pop(event, None) is None:
            raise Refused("INVALID_HANDLE")
