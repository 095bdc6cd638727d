"""CUDA memory between processes, on real GPUs: what ipc/cuda.py relies on."""

import json
import os
import secrets
import signal
import subprocess
import sys
from contextlib import ExitStack, contextmanager

import msgspec
import pytest

from ipc.host import HostPool, MappedPool
from runtime.host import probe_host
from tests.ipc.cuda_peer import dice

GPUS = probe_host().gpus
MIB = 2**20
SLOT_BYTES = 13 * MIB + 256

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not GPUS, reason="needs a GPU")]
needs_two = pytest.mark.skipif(len(GPUS) < 2, reason="needs two GPUs")


class Process:
    """A `Peer` in a process of its own: `process.write("a", 0, 5)` calls it there."""

    def __init__(self, started):
        self.started = started

    def answer(self):
        line = self.started.stdout.readline()
        assert line, f"the peer has ended: {self.started.wait()}"
        return json.loads(line)

    def __getattr__(self, name):
        def call(*args):
            self.started.stdin.write(json.dumps([name, args]) + "\n")
            self.started.stdin.flush()
            return self.answer()

        return call

    def kill_now(self):
        os.kill(self.started.pid, signal.SIGKILL)
        self.started.wait()


@pytest.fixture
def start(project):
    """Start peers: `start(gpu=0)` sees all GPUs and uses one, `start(only=uuid)` sees one."""
    with ExitStack() as stack:

        def begin(*, gpu=0, only=None, **variables):
            variables |= {"CUDA_VISIBLE_DEVICES": only} if only else {}
            command = [sys.executable, "-P", "-m", "tests.ipc.cuda_peer", str(gpu)]
            started = subprocess.Popen(
                command,
                env={**os.environ, **variables, "PYTHONPATH": python_path(project)},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            stack.enter_context(ended(started))
            process = Process(started)
            assert process.answer() == "ready"
            return process

        yield begin


def python_path(project):
    """The project, and whatever brings the packages here."""
    return os.pathsep.join(filter(None, [str(project), os.environ.get("PYTHONPATH", "")]))


@contextmanager
def ended(started):
    try:
        yield
    finally:
        started.kill()
        started.wait()
        started.stdin.close()
        started.stdout.close()


def seed():
    return secrets.randbits(32)


PLACEMENTS = {
    "one GPU": ({"gpu": 0}, {"gpu": 0}),
    "another GPU": ({"gpu": 0}, {"gpu": 1}),
    "GPUs that do not see each other": ({"only": 0}, {"only": 1}),
    "the same, the other way round": ({"only": 1}, {"only": 0}),
}


@pytest.mark.parametrize(
    "placement",
    [pytest.param(p, marks=() if p == "one GPU" else needs_two) for p in PLACEMENTS],
)
def test_what_one_process_writes_another_reads(start, placement):
    owner, reader = (
        start(**{k: GPUS[v].uuid if k == "only" else v for k, v in place.items()})
        for place in PLACEMENTS[placement]
    )
    assert (owner.who() == reader.who()) == (placement == "one GPU")
    assert {owner.who(), reader.who()} <= {gpu.uuid for gpu in GPUS}
    there, back, wrong = seed(), seed(), seed()
    reader.open(owner.make("shared", 4, SLOT_BYTES))
    reader.make("own", 1, SLOT_BYTES)
    reader.write("own", 0, wrong)
    owner.write("shared", 0, there)
    owner.write("shared", 3, wrong)
    reader.copy("own", "shared")  # from GPU to GPU
    reader.settle()
    assert reader.reads("own", 0, there)
    assert reader.reads("shared", 0, there)  # and to the host
    reader.write("shared", 3, back)
    assert owner.reads("shared", 3, back)
    reader.close("shared")
    assert owner.reads("shared", 0, there)


def test_a_stream_waits_for_an_event_of_another_on_the_gpu(start):
    assert start().follow(seed()) == [False, True, True]


def test_a_reader_goes_on_when_the_owner_is_killed(start):
    owner, reader, data = start(), start(gpu=len(GPUS) - 1), seed()
    reader.open(owner.make("shared", 1, 64 * MIB))
    reader.make("own", 1, 64 * MIB)
    owner.write("shared", 0, data)
    reader.write("own", 0, seed())
    was_done = reader.copy("own", "shared", 2000)  # 70 ms on one GPU, more between two
    owner.kill_now()
    assert not was_done
    reader.settle()
    assert reader.reads("own", 0, data)
    assert reader.reads("shared", 0, data)  # copies that began later, too
    reader.close("shared")
    later = seed()
    reader.make("later", 1, SLOT_BYTES)
    reader.write("later", 0, later)
    assert reader.reads("later", 0, later)


def test_an_owner_goes_on_when_a_reader_is_killed(start):
    owner, reader, data = start(), start(gpu=len(GPUS) - 1), seed()
    reader.open(owner.make("shared", 1, 64 * MIB))
    reader.make("own", 1, 64 * MIB)
    owner.write("shared", 0, data)
    reader.copy("own", "shared", 2000)
    reader.kill_now()
    assert owner.reads("shared", 0, data)
    owner.close("shared")
    another, later = start(gpu=len(GPUS) - 1), seed()
    another.open(owner.make("shared", 1, 64 * MIB))
    owner.write("shared", 0, later)
    assert another.reads("shared", 0, later)


def test_a_fault_is_told_as_a_lost_context_and_stays_in_its_process(start):
    owner, reader, data = start(), start(), seed()
    reader.open(owner.make("shared", 1, SLOT_BYTES))
    owner.write("shared", 0, data)
    assert owner.crash() == [["CUDA_ERROR_ILLEGAL_ADDRESS", True]]
    reader.make("own", 1, SLOT_BYTES)
    reader.write("own", 0, data)
    assert reader.reads("own", 0, data)


@pytest.fixture
def host_pool():
    data = seed()
    pool = HostPool("a@host", owner="add/0", num_slots=1, slot_bytes=SLOT_BYTES)
    with MappedPool(pool.address, writable=True) as mapped:
        view = mapped.array()
        view[:] = dice(data, SLOT_BYTES)
        del view
        yield msgspec.to_builtins(pool.address), data
    pool.close()


def test_a_host_pool_is_pinned_and_copied_from(start, host_pool):
    address, data = host_pool
    assert start().pin(address, False, data) is True


def test_a_host_pool_that_is_mapped_read_only_is_pinned_where_the_gpu_says_so(start, host_pool):
    address, data = host_pool
    peer = start()
    wanted = True if peer.can_pin_read_only() else "CUDA_ERROR_NOT_SUPPORTED"
    assert peer.pin(address, True, data) == wanted


def test_torch_s_expandable_segments_and_pools_leave_each_other_alone(start):
    owner = start(PYTORCH_ALLOC_CONF="expandable_segments:True")
    reader, data = start(), seed()
    before = owner.torch_sums(256)
    assert before[0]
    reader.open(owner.make("shared", 2, SLOT_BYTES))
    owner.write("shared", 1, data)
    assert reader.reads("shared", 1, data)
    reader.write("shared", 0, data)
    assert owner.torch_sums(256) == before
    reader.close("shared")
    owner.close("shared")
    assert owner.torch_sums(256) == before


def test_opening_and_closing_for_ever_takes_nothing(start):
    owner, reader = start(), start(gpu=len(GPUS) - 1)

    def cycles(count):
        for index in range(count):
            reader.open(owner.make(f"{index}", 1, 4 * MIB))
            reader.close(f"{index}")
            owner.close(f"{index}")
        return owner.held(), reader.held()

    for before, after in zip(cycles(100), cycles(2000), strict=True):
        gpu, resident, descriptors = (b - a for a, b in zip(before, after, strict=True))
        assert gpu <= 4 * MIB
        assert resident <= 16 * MIB
        assert descriptors <= 0
