"""What the fake driver is made of: statuses, handles, streams, and which GPUs are visible."""

import ctypes
import os
import struct
import threading
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import IntEnum
from functools import wraps
from queue import SimpleQueue

HANDLE = struct.Struct("=iiq48x")  # pid, fd, bytes


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
    queue: SimpleQueue[Callable[[], object] | None] = field(default_factory=SimpleQueue)

    def wait(self, mark):
        self.waits.set()
        mark.wait()

    def run(self):
        while (work := self.queue.get()) is not None:
            self.gate.wait()
            work()
        self.gate.wait()


def function(needs_context):
    """Turn a method into a function of the driver: (status, result) or (status, None)."""

    def make(method):
        @wraps(method)
        def call(self, *args):
            if self.lost is not None and method.__name__ != "cuGetErrorString":
                return self.lost, None
            if needs_context and getattr(self.thread, "context", None) is None:
                return CUresult.CUDA_ERROR_INVALID_CONTEXT, None
            try:
                return CUresult.CUDA_SUCCESS, method(self, *args)
            except Refused as refused:
                return refused.status, None

        return call

    return make


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
