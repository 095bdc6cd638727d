"""What the fake driver is made of: statuses, handles, streams, and which GPUs are visible."""

import ctypes
import os
import random
import struct
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import IntEnum
from functools import wraps
from queue import Queue

HANDLE = struct.Struct("=iiq16s32x")  # pid, fd, bytes, UUID of the GPU
POISON = 0xFF  # fills what nobody has written yet; of floating point numbers it makes NaN
SLOW_S = float(os.environ.get("FAKE_CUDA_SLOW_S", "0"))  # that work takes, at most


class CUresult(IntEnum):
    CUDA_SUCCESS = 0
    CUDA_ERROR_INVALID_VALUE = 1
    CUDA_ERROR_OUT_OF_MEMORY = 2
    CUDA_ERROR_NO_DEVICE = 100
    CUDA_ERROR_INVALID_DEVICE = 101
    CUDA_ERROR_INVALID_CONTEXT = 201
    CUDA_ERROR_ECC_UNCORRECTABLE = 214
    CUDA_ERROR_INVALID_HANDLE = 400
    CUDA_ERROR_NOT_READY = 600
    CUDA_ERROR_ILLEGAL_ADDRESS = 700
    CUDA_ERROR_HOST_MEMORY_ALREADY_REGISTERED = 712
    CUDA_ERROR_HOST_MEMORY_NOT_REGISTERED = 713
    CUDA_ERROR_NOT_SUPPORTED = 801


class Refused(Exception):
    def __init__(self, name):
        self.status = CUresult[f"CUDA_ERROR_{name}"]


class Handle:
    """An IPC handle: 64 bytes at an address."""

    def __init__(self):
        self._bytes = ctypes.create_string_buffer(64)

    def getPtr(self):
        return ctypes.addressof(self._bytes)


@dataclass
class Stream:
    """A thread that runs what is queued; `gate` closed, it stands still before the next of it."""

    thread: threading.Thread | None = None
    gate: threading.Event = field(default_factory=threading.Event)
    waits: threading.Event = field(default_factory=threading.Event)  # it has come to a mark
    queue: Queue[Callable[[], object] | None] = field(default_factory=Queue)
    _awaited: threading.Event | None = None

    def wait(self, mark):
        self.waits.set()
        self._awaited = mark
        mark.wait()

    def run(self):
        while (work := self.queue.get()) is not None:
            self._awaited = self.gate
            self.gate.wait()
            work()
            self.queue.task_done()
        self.gate.wait()

    def stands(self):
        """Whether it has done all it can until somebody opens its gate, or marks, or queues."""
        awaited = self._awaited
        return not self.queue.unfinished_tasks or (awaited is not None and not awaited.is_set())


def function(needs_context):
    """Turn a method into a function of the driver: (status, result) or (status, None)."""

    def make(method):
        @wraps(method)
        def call(self, *args):
            if self.lost is not None and method.__name__ != "cuGetErrorString":
                return self.lost, None
            if method.__name__ in self.refuses:
                return CUresult.CUDA_ERROR_NOT_SUPPORTED, None
            if needs_context and getattr(self.thread, "context", None) is None:
                return CUresult.CUDA_ERROR_INVALID_CONTEXT, None
            try:
                return CUresult.CUDA_SUCCESS, method(self, *args)
            except Refused as refused:
                return refused.status, None

        return call

    return make


def dawdle():
    """Take as long as work on a GPU may."""
    if SLOW_S:
        time.sleep(random.random() * SLOW_S)


def copy(target, source, nbytes):
    """Copy, and leave no old numbers to whoever reads the target too early."""
    ctypes.memset(target, POISON, nbytes)
    dawdle()
    ctypes.memmove(target, source, nbytes)


def fake_uuid(index):
    return uuid.uuid5(uuid.NAMESPACE_OID, f"fake GPU {index}")


def visible(gpus):
    """Return those that CUDA_VISIBLE_DEVICES names, in its order."""
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named is None:
        return gpus
    known = {f"GPU-{gpu}": gpu for gpu in gpus} | {str(i): gpu for i, gpu in enumerate(gpus)}
    return [known[name] for name in named.split(",") if name in known]


def is_writable(address):
    with open("/proc/self/maps") as maps:
        for line in maps:
            place, permissions = line.split()[:2]
            start, end = (int(number, 16) for number in place.split("-"))
            if start <= address < end:
                return permissions[1] == "w"
    return False
