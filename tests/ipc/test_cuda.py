"""Pools in GPU memory, with the fake driver; test_cuda_gpu.py has the real one."""

import os
import subprocess
import sys

import msgspec
import numpy as np
import pytest

from ipc.cuda import CudaPool, Device, Event, OpenedPool, PinnedMemory, Stream
from ipc.cuda_driver import load_driver
from ipc.errors import Closed, CudaError, NoCuda, NoMemory, ProtocolError
from ipc.host import HostPool, MappedPool
from ipc.records import PoolAddress
from tests.ipc.fake_driver import FakeDriver, fake_uuid
from tests.ipc.fake_gpu import Refused

MODULE = "cuda.bindings.driver"
SLOT_BYTES = 4096
DICE = np.random.default_rng()


def fresh(nbytes=SLOT_BYTES):
    return DICE.integers(0, 256, nbytes, np.uint8)


def copy(device, target, source, nbytes=SLOT_BYTES):
    with Stream(device) as stream:
        stream.copy(target, source, nbytes)
        stream.synchronize()


READER = """
import sys
import msgspec, numpy as np
from ipc.cuda import Device, OpenedPool, Stream
from ipc.records import PoolAddress
address = msgspec.json.decode(sys.argv[1], type=PoolAddress)
found = np.zeros(address.slot_bytes, np.uint8)
with Device(0) as device, Stream(device) as stream:
    with OpenedPool(device, address) as pool, OpenedPool(device, address) as again:
        assert again.pointer == pool.pointer
        stream.copy(found.ctypes.data, pool.pointer + 2 * address.slot_bytes, found.nbytes)
        stream.synchronize()
        again.close()
        stream.copy(pool.pointer + 3 * address.slot_bytes, found.ctypes.data, found.nbytes)
        stream.synchronize()
        pool.close()
driver = sys.modules["cuda.bindings.driver"]
driver.join()
assert driver.left() == {}, driver.left()
print(device.uuid, found.sum())
"""


def run_fake(project, code, *args, check=True, **variables):
    folders = [project / "tests" / "ipc" / "fake_cuda", project]
    return subprocess.run(
        [sys.executable, "-P", "-c", code, *args],
        env={**os.environ, **variables, "PYTHONPATH": os.pathsep.join(map(str, folders))},
        capture_output=True,
        text=True,
        check=check,
    )


def test_another_process_reads_and_writes_a_pool_by_its_address(device, gpu_pool, project):
    written, found = fresh(), np.zeros(SLOT_BYTES, np.uint8)
    copy(device, gpu_pool.pointer + 2 * SLOT_BYTES, written.ctypes.data)
    address = msgspec.json.encode(gpu_pool.address).decode()
    gpus = {"FAKE_CUDA_GPUS": "2", "CUDA_VISIBLE_DEVICES": "1"}
    said = run_fake(project, READER, address, **gpus).stdout
    assert said.split() == [f"GPU-{fake_uuid(1)}", str(written.sum())]
    copy(device, found.ctypes.data, gpu_pool.pointer + 3 * SLOT_BYTES)
    assert np.array_equal(found, written)


def test_an_address_says_whose_pool_it_is_and_on_which_gpu(device, gpu_pool):
    address = gpu_pool.address
    assert (address.owner, address.num_slots, address.slot_bytes) == ("add/0", 4, SLOT_BYTES)
    assert (address.pid, address.fd, address.gpu) == (os.getpid(), -1, device.uuid)
    assert len(address.ipc_handle) == 64
    assert device.name == "Fake GPU"
    assert device.uuid == f"GPU-{fake_uuid(0)}"


def test_a_pool_shares_its_allocation_with_nothing_else(fake, gpu_pool):
    ((_fd, memory),) = fake.memory.values()
    assert len(memory) % 2**21 == 0


def test_memory_that_the_gpu_refuses_is_told_in_numbers(device, gpu_pool):
    wanted = r"pool b@gpu: GPU-\S+ refused 63 MiB, 62 of its 64 MiB are free"
    with pytest.raises(NoMemory, match=wanted):
        CudaPool(device, "b@gpu", owner="add/0", num_slots=63, slot_bytes=2**20)
    assert device.memory() == (62 * 2**20, 64 * 2**20)


def test_memory_that_cannot_be_exported_is_freed(fake, device, monkeypatch):
    monkeypatch.setattr(
        fake, "cuIpcGetMemHandle", lambda pointer: (Refused("NOT_SUPPORTED").status, None)
    )
    with pytest.raises(CudaError, match=r"cuIpcGetMemHandle: CUDA_ERROR_NOT_SUPPORTED \(801\): "):
        CudaPool(device, "b@gpu", owner="add/0", num_slots=1, slot_bytes=1)
    assert fake.memory == {}


def test_a_pool_of_this_process_is_not_opened(device, gpu_pool):
    with pytest.raises(CudaError, match=r"cuIpcOpenMemHandle: .* meaning of 201") as caught:
        OpenedPool(device, gpu_pool.address)
    assert (caught.value.code, caught.value.name) == (201, "CUDA_ERROR_INVALID_CONTEXT")
    assert not caught.value.is_lost


def test_what_is_no_pool_on_a_gpu_is_not_opened(device, gpu_pool):
    host = PoolAddress(name="a@host", owner="add/0", num_slots=1, slot_bytes=1, pid=1, fd=3)
    with pytest.raises(ProtocolError, match="pool a@host lies on no GPU"):
        OpenedPool(device, host)
    short = msgspec.structs.replace(gpu_pool.address, ipc_handle=b"short")
    with pytest.raises(ProtocolError, match="pool a@gpu: an IPC handle has 64 bytes, got 5"):
        OpenedPool(device, short)


def test_everything_may_be_closed_twice(device):
    memory = fresh()
    owners = [
        Stream(device),
        Event(device),
        CudaPool(device, "b@gpu", owner="add/0", num_slots=1, slot_bytes=1),
        PinnedMemory(device, memory.ctypes.data, memory.nbytes, read_only=False),
        Device(0),
    ]
    for owner in owners:
        owner.close()
        owner.close()
    with pytest.raises(Closed, match=r"GPU-\S+ is closed"):
        owners[-1].use()


def test_in_a_lost_context_everything_still_closes(fake, device, gpu_pool):
    memory = fresh()
    with (
        Stream(device),
        Event(device),
        PinnedMemory(device, memory.ctypes.data, memory.nbytes, read_only=False),
    ):
        fake.lose("ECC_UNCORRECTABLE")
        with pytest.raises(CudaError, match="CUDA_ERROR_ECC_UNCORRECTABLE") as caught:
            CudaPool(device, "b@gpu", owner="add/0", num_slots=1, slot_bytes=1)
    assert caught.value.is_lost


def test_giving_up_what_is_not_ours_is_an_error(fake, device):
    pool = CudaPool(device, "b@gpu", owner="add/0", num_slots=1, slot_bytes=1)
    fake.cuMemFree(pool.pointer)
    with pytest.raises(CudaError, match="cuMemFree: CUDA_ERROR_INVALID_VALUE"):
        pool.close()


@pytest.fixture
def mapped():
    host = HostPool("a@host", owner="add/0", num_slots=1, slot_bytes=SLOT_BYTES)
    with MappedPool(host.address, writable=False) as seen:
        yield seen.array().ctypes.data
    host.close()


def test_memory_that_is_mapped_read_only_is_pinned_as_such(device, mapped):
    with pytest.raises(CudaError, match="cuMemHostRegister"):
        PinnedMemory(device, mapped, SLOT_BYTES, read_only=False)
    with (
        PinnedMemory(device, mapped, SLOT_BYTES, read_only=True),
        pytest.raises(CudaError, match="HOST_MEMORY_ALREADY_REGISTERED"),
    ):
        PinnedMemory(device, mapped, SLOT_BYTES, read_only=True)


def test_a_device_tells_whether_it_pins_what_is_mapped_read_only(fake, device, mapped):
    assert device.can_pin_read_only()
    fake.can_pin_read_only = False
    assert not device.can_pin_read_only()
    with pytest.raises(CudaError, match="CUDA_ERROR_NOT_SUPPORTED"):
        PinnedMemory(device, mapped, SLOT_BYTES, read_only=True)


def test_gpus_count_as_cuda_visible_devices_names_them(monkeypatch):
    monkeypatch.setenv("FAKE_CUDA_GPUS", "3")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", f"2,GPU-{fake_uuid(0)}")
    monkeypatch.setitem(sys.modules, MODULE, FakeDriver())
    with Device(0) as first, Device(1) as second:
        assert (first.uuid, second.uuid) == (f"GPU-{fake_uuid(2)}", f"GPU-{fake_uuid(0)}")
    with pytest.raises(CudaError, match="cuDeviceGet: CUDA_ERROR_INVALID_DEVICE"):
        Device(2)


def test_no_gpu_is_an_error_of_the_driver(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.setitem(sys.modules, MODULE, FakeDriver())
    with pytest.raises(CudaError, match="cuInit: CUDA_ERROR_NO_DEVICE"):
        Device(0)


def test_without_the_package_a_device_says_so(monkeypatch):
    monkeypatch.setitem(sys.modules, MODULE, None)
    with pytest.raises(NoCuda, match="the package cuda-bindings cannot be imported: "):
        Device(0)


def test_without_a_driver_the_real_package_says_so(project):
    code = (
        "from ipc.cuda import Device\nfrom ipc.errors import *\n"
        "import ctypes, ctypes.util\n"
        "try: ctypes.CDLL('libcuda.so.1')\n"
        "except OSError: pass\n"
        "else: raise SystemExit(77)\n"
        "try: Device(0)\n"
        "except NoCuda as error: print(error)\n"
    )
    command = [sys.executable, "-P", "-c", code]
    done = subprocess.run(command, env={"PYTHONPATH": str(project)}, capture_output=True, text=True)
    if done.returncode == 77:
        pytest.skip("there is a driver")
    assert done.stdout.startswith("NVIDIA's driver cannot be loaded: "), done.stderr


def test_loading_twice_is_loading_once(fake):
    assert load_driver() is load_driver() is fake
