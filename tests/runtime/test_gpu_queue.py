"""The order of copies and computing of one worker's runs, by streams that stand still in turn."""

import time

import numpy as np
import pytest

from ipc.cuda import GRANULE_BYTES, CudaMemory
from ipc.errors import NoMemory
from runtime.gpu_memory import GpuPools
from runtime.gpu_queue import DEPTH, GpuQueue
from runtime.trace import COPY_IN, COPY_OUT, Recorder
from runtime.worker_gpu import GpuLost
from stages.base import Item
from tests import fake_torch
from tests.ipc.fake_driver import GPU_BYTES
from tests.runtime.gpu_worker import WIDTH, Triple
from tests.waiting import wait_until

NUM_RUNS = DEPTH + 2  # so that slots are used again


class Runs:
    """Runs of one stage that are queued without end: what limits them elsewhere does not here."""

    def __init__(self, worker, trace=None):
        self.worker, self._queue = worker, worker.queue
        self._memory = worker.open_memory()
        self._queue.make_ready(self._memory, worker.hosted, trace)
        self._hosted = worker.hosted["y"]
        self.done, self._written = [], {}

    def queue(self, item):
        handles = {"x": self.worker.write(item)}
        written = self._written[item] = self._memory.lease(item, 0, ("y",))
        run = self._queue.begin(self._hosted, handles, written, item=item)
        told = Item(index=item, attempt=0, meta=None)
        self._hosted.stage.run(run.inputs, run.outputs, told)
        self._queue.end(run, item, failed=False)

    def finish(self):
        """Wait for all, and return the numbers that they have written into host memory."""

        def all_done():
            self.done += self._queue.done()
            return len(self.done) == len(self._written)

        wait_until(all_done)
        values = [self.worker.value(written["y"]) for written in self._written.values()]
        self.close()
        return values

    def close(self):
        self._queue.close()
        self._memory.close()


@pytest.fixture
def worker(gpu_worker):
    return gpu_worker(Triple("x", "y", begun=[]))


@pytest.mark.parametrize("stream", ["copy_in", "compute", "copy_out"])
def test_whichever_stream_is_late_the_numbers_are_right(worker, stream):
    runs = Runs(worker)
    with worker.held(getattr(worker.gpu, stream)):
        for item in range(NUM_RUNS):
            runs.queue(item)
    assert runs.finish() == [3 * item + 1 for item in range(NUM_RUNS)]
    assert runs.done == list(range(NUM_RUNS)), "in order"


@pytest.mark.parametrize("stream", ["copy_in", "compute", "copy_out"])
def test_nothing_is_done_while_a_stream_stands_still(worker, stream):
    runs = Runs(worker)
    with worker.held(getattr(worker.gpu, stream)):
        runs.queue(0)
        worker.wait_until_still()
        assert list(worker.queue.done()) == []
    assert runs.finish() == [1]
    assert worker.num_woken == 1


def test_the_next_item_comes_in_while_one_is_computed(worker):
    runs = Runs(worker)
    copied = worker.driver.streams[worker.gpu.copy_in.handle].queue
    with worker.held(worker.gpu.compute):
        for item in range(DEPTH):
            runs.queue(item)
        worker.wait_until_still()
        assert not copied.unfinished_tasks
    runs.finish()


def test_a_trace_has_the_copies_of_each_run_beside_it(worker):
    trace = Recorder()
    runs = Runs(worker, trace)
    with worker.held(worker.gpu.compute):
        for item in range(DEPTH):
            runs.queue(item)
        worker.wait_until_still()
        computing = time.monotonic()
    runs.finish()
    _names, records = trace.read()
    for kind in (COPY_IN, COPY_OUT):
        copies = records[records["kind"] == kind]
        assert sorted(copies["item"].tolist()) == list(range(DEPTH))
        assert (copies["begin"] <= copies["end"]).all()
        assert (np.sort(copies["begin"])[1:] >= np.sort(copies["end"])[:-1]).all(), "one by one"
    arrived = records[records["kind"] == COPY_IN]["end"]
    assert (arrived <= computing).all(), "they came in while the GPU was busy"
    assert (records[records["kind"] == COPY_OUT]["begin"] >= computing).all()


def test_a_context_that_is_lost_is_found_out_when_work_is_queued(worker):
    runs = Runs(worker)
    fake_torch.break_gpu("cuda:0")
    wait_until(lambda: worker.driver.lost is not None)
    with pytest.raises(GpuLost, match="ILLEGAL_ADDRESS"):
        runs.queue(0)
    worker.driver.lost = None  # so that all can be given back
    runs.close()


def test_staging_that_is_refused_gives_all_back(gpu_worker):
    worker = gpu_worker(Triple("x", "y", begun=[]), Triple("y", "z", begun=[]))
    memory = worker.open_memory()
    with CudaMemory(worker.gpu.device, "other", GPU_BYTES - GRANULE_BYTES):
        before = len(worker.driver.memory), len(worker.driver.events)
        with pytest.raises(NoMemory, match=r"z\.staging: .* 0 of its 64 MiB are free"):
            worker.queue.make_ready(memory, worker.hosted)
        assert len(worker.driver.memory) == before[0] + 1
        worker.queue.close()
        assert (len(worker.driver.memory), len(worker.driver.events)) == before
    memory.close()


def test_pools_close_when_the_copies_from_them_are_done(gpu_worker, monkeypatch):
    worker = gpu_worker(Triple("x", "y", begun=[]), on_gpu=["y"])
    driver, pools, queued = worker.driver, GpuPools(worker.gpu), []
    unregister, synchronize = driver.cuMemHostUnregister, driver.cuEventSynchronize
    stream = driver.streams[worker.gpu.copy_in.handle]

    def seen_unregister(address):
        queued.append(stream.queue.unfinished_tasks)
        stream.gate.set()
        return unregister(address)

    def let_go_and_synchronize(event):
        stream.gate.set()
        return synchronize(event)

    monkeypatch.setattr(driver, "cuMemHostUnregister", seen_unregister)
    monkeypatch.setattr(driver, "cuEventSynchronize", let_go_and_synchronize)
    pools.pin(worker.mapped["in"])
    worker.write(0)
    stream.gate.clear()
    worker.gpu.copy_in.copy(worker.gpu.pool.pointer, pools.pointer("in"), 4 * WIDTH)
    pools.close()
    assert queued == [0]


def test_a_queue_for_a_worker_whose_stages_take_no_gpu_makes_nothing(gpu_worker):
    worker = gpu_worker(Triple("x", "y", begun=[], library="numpy"))
    memory, before = worker.open_memory(), len(worker.driver.memory)
    queue = GpuQueue(worker.gpu)
    queue.make_ready(memory, worker.hosted)
    assert (queue.nbytes, len(worker.driver.memory)) == (0, before)
    queue.close()
    memory.close()


def test_what_a_failed_item_lacks_is_left_out(worker):
    runs = Runs(worker)
    run = worker.queue.begin(worker.hosted["y"], {}, {})
    assert run.inputs == {}
    worker.queue.end(run, 0, failed=True)
    wait_until(lambda: list(worker.queue.done()) == [0])
    runs.close()
