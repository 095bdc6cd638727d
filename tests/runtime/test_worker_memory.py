"""What a worker does about its memory, so that it costs no more CPU than the same stages inline."""

import os
import subprocess
import sys
from contextlib import closing

import numpy as np
import pytest

from ipc.host import HostPool
from ipc.records import TensorPlace
from runtime.memory import JobMemory
from runtime.process import KEEP_FREED

# Temporaries of 1 to 20 MiB, made and freed again as a stage does for every item.
TEMPORARIES = """
import resource
import numpy as np

def item():
    kept = [np.ones(mib << 20, np.uint8) for mib in (20, 5, 1, 10)]
    kept[1:3] = [np.ones(8 << 20, np.uint8)]

for _ in range(3):
    item()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(5):
    item()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def test_freed_memory_is_used_again_without_page_faults():
    command = [sys.executable, "-c", TEMPORARIES]
    env = {k: v for k, v in os.environ.items() if not k.startswith("MALLOC_")} | KEEP_FREED
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=True)
    assert int(done.stdout) < 100  # by default 12,000: pages given back come in again


@pytest.fixture
def memory():
    with closing(HostPool("add/0.0@host#1", owner="add/0", num_slots=1, slot_bytes=64)) as pool:
        place = TensorPlace(name="y", offset=0, shape=(4,), dtype="float32", readers=("write",))
        owners = {pool.address.name: "add/0"}
        yield JobMemory("add/0", (pool.address,), owners, {pool.address.name: (place,)}, {"numpy"})


def view_of(memory):
    return memory.views(memory.lease(0, 0, ("y",)), ("y",), "numpy")["y"]


def test_a_view_that_only_a_cycle_holds_does_not_keep_a_pool(memory):
    cycle = [view_of(memory)]
    cycle.append(cycle)
    del cycle
    memory.close()


def test_a_view_that_is_kept_is_told_with_its_pool(memory):
    kept = view_of(memory)
    with pytest.raises(BufferError, match=r"kept a view of pool add/0\.0@host#1"):
        memory.close()
    assert isinstance(kept, np.ndarray)
    del kept
    memory.close()
