"""A process with a GPU, for test_cuda_gpu.py: one call of a `Peer` per line of standard input."""

import json
import os
import sys
from pathlib import Path

import msgspec
import numpy as np

from ipc.cuda import CudaPool, Device, Event, OpenedPool, PinnedMemory, Stream, Waiter
from ipc.cuda_driver import call
from ipc.errors import CudaError
from ipc.host import MappedPool
from ipc.records import PoolAddress

LONG_BYTES = 2**29  # copied on one GPU in a quarter of a millisecond
SHORT_BYTES = 4096
CRASH = b"""
.version 7.0
.target sm_75
.address_size 64
.visible .entry crash() {
    .reg .u64 %address;
    .reg .u32 %value;
    mov.u64 %address, 16;
    mov.u32 %value, 1;
    st.global.u32 [%address], %value;
    ret;
}
\0"""


def dice(seed, nbytes):
    return np.random.default_rng(seed).integers(0, 256, nbytes, np.uint8)


class Peer:
    def __init__(self, ordinal):
        self.device = Device(ordinal)
        self.stream, self.pools = Stream(self.device), {}
        self.kept = []  # of torch

    def who(self):
        return self.device.uuid

    def make(self, name, num_slots, slot_bytes):
        shape = {"num_slots": num_slots, "slot_bytes": slot_bytes}
        self.pools[name] = CudaPool(self.device, name, owner="peer/0", **shape)
        return msgspec.to_builtins(self.pools[name].address)

    def open(self, address):
        opened = OpenedPool(self.device, msgspec.convert(address, PoolAddress))
        self.pools[opened.address.name] = opened

    def close(self, name):
        self.pools.pop(name).close()

    def _at(self, name, slot):
        return self.pools[name].pointer + slot * self.pools[name].address.slot_bytes

    def _data(self, name, seed):
        return dice(seed, self.pools[name].address.slot_bytes)

    def write(self, name, slot, seed):
        data = self._data(name, seed)
        self.stream.copy(self._at(name, slot), data.ctypes.data, data.nbytes)
        self.stream.synchronize()

    def reads(self, name, slot, seed):
        """Say whether the slot has the data of this seed; where it is read to it never was."""
        wanted = self._data(name, seed)
        found = ~wanted
        self.stream.copy(found.ctypes.data, self._at(name, slot), found.nbytes)
        self.stream.synchronize()
        return bool(np.array_equal(found, wanted))

    def copy(self, target, source, times=1):
        """Queue copies of slot 0, one after the other, and do not wait."""
        nbytes = self.pools[source].address.slot_bytes
        for _ in range(times):
            self.stream.copy(self._at(target, 0), self._at(source, 0), nbytes)
        with Event(self.device) as event:
            event.record(self.stream)
            return event.done()

    def settle(self):
        self.stream.synchronize()

    def follow(self, seed):
        """Have one stream read what another writes late, and say whether it waited for that."""
        shape = {"owner": "peer/0", "num_slots": 3, "slot_bytes": LONG_BYTES}
        data = dice(seed, SHORT_BYTES)
        wrong, found = ~data, ~data
        with (
            CudaPool(self.device, "long", **shape) as pool,
            Stream(self.device) as late,
            Stream(self.device) as follower,
            Event(self.device) as written,
        ):
            right, poisoned, place = (pool.pointer + slot * LONG_BYTES for slot in range(3))
            late.copy(right, data.ctypes.data, SHORT_BYTES)
            late.copy(poisoned, wrong.ctypes.data, SHORT_BYTES)
            late.synchronize()
            for _ in range(100):
                late.copy(place, poisoned, LONG_BYTES)
            late.copy(place, right, SHORT_BYTES)
            written.record(late)
            was_done = written.done()
            follower.wait(written)
            follower.copy(found.ctypes.data, place, SHORT_BYTES)
            follower.synchronize()
            return [was_done, written.done(), bool(np.array_equal(found, data))]

    def pin(self, address, read_only, seed):
        """Pin a host pool and copy through it; return the error's name, or whether it was right."""
        with MappedPool(msgspec.convert(address, PoolAddress), writable=not read_only) as mapped:
            view = mapped.array()
            try:
                pinned = PinnedMemory(
                    self.device, view.ctypes.data, view.nbytes, read_only=read_only
                )
            except CudaError as error:
                return error.name
            finally:
                pointer = view.ctypes.data
                del view
            with pinned:
                self.make("pinned", 1, mapped.address.slot_bytes)
                self.stream.copy(self._at("pinned", 0), pointer, mapped.address.slot_bytes)
                is_right = self.reads("pinned", 0, seed)
                self.close("pinned")
            return is_right

    def can_pin_read_only(self):
        return self.device.can_pin_read_only()

    def torch_sums(self, mib):
        """Take memory from torch once; say whether it is all in such segments, and its sums."""
        import torch

        if not self.kept:
            self.kept = [
                torch.randint(0, 256, (mib * 2**18,), dtype=torch.uint8, device="cuda")
                for _ in range(4)
            ]
        is_expandable = all(s["is_expandable"] for s in torch.cuda.memory_snapshot())
        return [is_expandable, *(int(part.sum(dtype=torch.int64)) for part in self.kept)]

    def crash(self):
        """Queue a kernel that writes where nothing is; return what the waiter hears of it."""
        driver, told = self.device.driver, []
        (module,) = call(driver, "cuModuleLoadData", CRASH)
        (kernel,) = call(driver, "cuModuleGetFunction", module, b"crash")
        with Event(self.device) as event, Waiter(self.device) as waiter:
            one = (1, 1, 1)
            call(driver, "cuLaunchKernel", kernel, *one, *one, 0, self.stream.handle, 0, 0)
            event.record(self.stream)
            waiter.after(event, told.append)
            waiter.stop()
        for name in list(self.pools):
            self.close(name)
        self.stream.close()
        return [(error.name, error.is_lost) for error in told]

    def held(self):
        """Return what could grow: GPU memory taken, resident bytes, descriptors."""
        free, total = self.device.memory()
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        return [total - free, pages * os.sysconf("SC_PAGE_SIZE"), len(os.listdir("/proc/self/fd"))]


def say(answer):
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()


def main():
    peer = Peer(int(sys.argv[1]))
    say("ready")
    for line in sys.stdin:
        name, args = json.loads(line)
        say(getattr(peer, name)(*args))


if __name__ == "__main__":
    main()
