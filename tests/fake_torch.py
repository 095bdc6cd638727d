"""What the runtime and the stages of tests/gpu_fakes.py take of torch, with the fake driver below.

A tensor is a numpy array over the memory that the driver has made, and a kernel is a function that
the compute stream calls, later than it was queued. Who does not wait for it errs.
"""

import ctypes
import importlib
import threading

import numpy as np

from runtime import views
from tests.ipc.fake_gpu import POISON, CUresult


class Current(threading.local):
    """What torch knows of each thread."""

    stream = 0


CURRENT = Current()


PARTS = {  # what is replaced, and the modules of runtime/ that bind its name when they load
    "gpu_bytes": ("views", "gpu_memory", "gpu_queue"),
    "compute_on": ("views", "worker_gpu"),
    "_as_torch": ("views",),
    "_torch_dtype": ("views",),
}


def install():
    """Stand in torch's place in a worker that starts, which has loaded nothing of runtime/ yet."""
    for name in PARTS:
        setattr(views, name, globals()[name])


def gpu_bytes(pointer, nbytes):
    return np.ctypeslib.as_array((ctypes.c_ubyte * nbytes).from_address(pointer))


def compute_on(stream):
    CURRENT.stream = stream


def _as_torch(data):
    return data


def _torch_dtype(name):
    return np.dtype("uint16" if name == "bfloat16" else name)


def _driver():
    return importlib.import_module("cuda.bindings.driver")


# --- what tests/gpu_kernels.py has for real GPUs ---


def place(device):
    return device


def warm_up(device):
    pass


def queue(device, inputs, outputs, work):
    """Queue `work`; without the driver, do it: then all lies in host memory."""
    if not CURRENT.stream:
        work()
        return
    for tensor in (*inputs, *outputs):
        assert _driver().can_compute_on(tensor.ctypes.data, tensor.nbytes), "it lies elsewhere"
    for tensor in outputs:
        _driver().launch(CURRENT.stream, lambda out=tensor: out.view(np.uint8).fill(POISON))
    _driver().launch(CURRENT.stream, work)


def break_gpu(device):
    """Queue a kernel that writes where nothing is."""

    def crash():
        _driver().lost = CUresult.CUDA_ERROR_ILLEGAL_ADDRESS

    _driver().launch(CURRENT.stream, crash)
