"""Items whose runs are queued on a GPU: nobody is told of one before it is done."""

import numpy as np
import pytest

from ipc.messages import ItemFailed, SlotFreed
from runtime.gpu_queue import DEPTH
from runtime.trace import FAILED, RUN
from runtime.worker_gpu import GpuLost
from tests import fake_torch
from tests.runtime.gpu_worker import NUM_SLOTS, Triple
from tests.waiting import wait_until


@pytest.fixture
def begun():
    """What the stages have begun: (stage, item)."""
    return []


@pytest.fixture
def open_worker(gpu_worker):
    def make(*stages, **options):
        worker = gpu_worker(*stages, **options)
        worker.open()
        return worker

    return make


def runs_of(worker):
    """Return what was traced: (stage, item, kind), and the times, which must not overlap."""
    names, records = worker.trace.read()
    records = records[np.isin(records["kind"], (RUN, FAILED))]
    assert all(records["begin"] <= records["end"])
    assert all(records["end"][:-1] <= records["begin"][1:])
    return [(names[r["name"]], int(r["item"]), int(r["kind"])) for r in records]


def test_a_few_runs_are_queued_and_nobody_is_told_before_they_are_done(open_worker, begun):
    worker = open_worker(Triple("x", "y", begun=begun))
    with worker.held(worker.gpu.compute):
        worker.feed(DEPTH + 3)
        worker.run_all()
        worker.wait_until_still()
        worker.items.end_done()
        assert begun == [("y", item) for item in range(DEPTH)]
        assert worker.sent == []
        assert worker.num_woken == 0
    left = worker.pass_until(DEPTH + 3)
    assert [ready.item for ready in left] == list(range(DEPTH + 3))
    assert [worker.value(ready.handles["y"]) for ready in left] == [3 * r.item + 1 for r in left]
    assert worker.num_woken == DEPTH + 3


def test_what_was_read_is_let_go_of_when_the_run_is_done_and_with_its_item(open_worker, begun):
    worker = open_worker(Triple("x", "y", begun=begun))
    worker.feed(2)
    worker.pass_until(2)
    freed = [(to, m.pool, m.item) for to, m in worker.sent if isinstance(m, SlotFreed)]
    assert freed == [("read/0", "in", 0), ("read/0", "in", 1)]
    assert [type(m).__name__ for _to, m in worker.sent] == ["SlotFreed", "ItemReady"] * 2


def test_the_oldest_run_is_the_one_that_is_seen(open_worker, begun):
    worker = open_worker(Triple("x", "y", begun=begun))
    with worker.held(worker.gpu.compute):
        worker.feed(DEPTH)
        worker.run_all()
        assert worker.ledger.running().item == 0
        assert not worker.ledger.running().waits_for
        assert worker.ledger.num_here() == DEPTH
        assert worker.meter.usage().items == 0
    worker.pass_until(DEPTH)
    assert runs_of(worker) == [("y", item, RUN) for item in range(DEPTH)]
    assert worker.meter.usage().items == DEPTH
    (link,) = (link for link in worker.meter.usage().links if link.peer == "read/0")
    assert (link.items, link.transport) == (DEPTH, "host")
    assert worker.ledger.running().waits_for == "read"


def test_progress_of_a_run_that_is_only_queued_is_not_that_of_another(open_worker, begun):
    worker = open_worker(Triple("x", "y", begun=begun))
    with worker.held(worker.gpu.compute):
        worker.feed(2)
        worker.run_all()
        assert (worker.ledger.running().item, worker.ledger.running().progress) == (0, 0.0)
    worker.pass_until(2)


def test_the_busy_time_of_runs_that_overlap_counts_once(open_worker, begun):
    worker = open_worker(Triple("x", "y", begun=begun))
    worker.feed(DEPTH)
    worker.pass_until(DEPTH)
    _names, records = worker.trace.read()
    ran = records[records["kind"] == RUN]
    assert worker.meter.usage().busy_s <= ran["end"][-1] - ran["begin"][0] + 1e-6


def test_a_stage_follows_another_on_the_gpu_without_a_wait(open_worker, begun):
    worker = open_worker(Triple("x", "a", begun=begun), Triple("a", "y", begun=begun), on_gpu=["a"])
    with worker.held(worker.gpu.compute):
        worker.feed(3)
        worker.run_all()
        assert begun == [("a", 0), ("y", 0), ("a", 1)]
        assert worker.sent == []
    left = worker.pass_until(3)
    assert [worker.value(ready.handles["y"]) for ready in left] == [4.0, 13.0, 22.0]
    expected = [("a", 0), ("y", 0), ("a", 1), ("y", 1), ("a", 2), ("y", 2)]
    assert [(stage, item) for stage, item, _kind in runs_of(worker)] == expected


def test_what_goes_by_host_memory_is_awaited_before_the_next_stage_reads_it(open_worker, begun):
    worker = open_worker(Triple("x", "a", begun=begun), Triple("a", "y", begun=begun))
    with worker.held(worker.gpu.copy_out):
        worker.feed(DEPTH + 1)
        worker.run_all()
        worker.wait_until_still()
        worker.items.end_done()
        worker.run_all()
        assert begun == [("a", item) for item in range(DEPTH)]
    left = worker.pass_until(DEPTH + 1)
    assert [worker.value(ready.handles["y"]) for ready in left] == [4.0, 13.0, 22.0, 31.0]


def test_what_another_worker_takes_from_the_gpu_is_sent_when_it_is_done(open_worker, begun):
    worker = open_worker(Triple("x", "a", begun=begun), after=["y"], on_gpu=["a"])
    with worker.held(worker.gpu.compute):
        worker.feed(2)
        worker.run_all()
        worker.wait_until_still()
        worker.items.end_done()
        assert worker.sent == []
    worker.pass_until(1)
    assert {to for to, m in worker.sent if m in worker.left()} == {"other/0"}


def test_a_stage_in_host_memory_waits_until_the_gpu_is_done(open_worker, begun):
    worker = open_worker(
        Triple("x", "a", begun=begun), Triple("a", "y", begun=begun, library="numpy")
    )
    worker.feed(1)
    worker.run_all()
    wait_until(lambda: worker.num_woken == 1)
    with worker.held(worker.gpu.compute):
        worker.feed(1, first=1)
        worker.run_all()
        worker.items.end_done()
        worker.run_all()
        assert begun == [("a", 0), ("a", 1)], "and item 0 is ready for the other one"
    left = worker.pass_until(2)
    assert [worker.value(ready.handles["y"]) for ready in left] == [4.0, 13.0]
    assert begun == [("a", 0), ("a", 1), ("y", 0), ("y", 1)]


def test_an_item_that_raises_between_others_is_told_in_its_turn(open_worker, begun):
    worker = open_worker(Triple("x", "y", begun=begun, raises_at=1))
    with worker.held(worker.gpu.compute):
        worker.feed(3)
        worker.run_all()
        assert [type(m) for _to, m in worker.sent] == [ItemFailed], "and who waits for it is not"
    left = worker.pass_until(3)
    assert [(ready.item, bool(ready.failed)) for ready in left] == [(0, 0), (1, 1), (2, 0)]
    assert [kind for _stage, _item, kind in runs_of(worker)] == [RUN, FAILED, RUN]
    assert [worker.value(left[index].handles["y"]) for index in (0, 2)] == [1.0, 7.0]
    assert len([m for _to, m in worker.sent if isinstance(m, SlotFreed)]) == 3


def test_slots_of_items_that_raised_are_used_again(open_worker, begun):
    worker = open_worker(Triple("x", "y", begun=begun, raises_at=0))
    for _ in range(20):  # more than there are slots
        worker.sent.clear()
        worker.feed(1)
        worker.pass_until(1)
    assert len(begun) == 20


@pytest.mark.parametrize(
    ("library", "on_gpu"),
    [("torch", ["y"]), ("torch", []), ("numpy", [])],
    ids=["on the GPU", "in host memory", "of a stage on the CPU"],
)
def test_slots_of_what_nobody_reads_are_used_again(open_worker, begun, library, on_gpu):
    stage = Triple("x", "y", begun=begun, library=library)
    worker = open_worker(stage, on_gpu=on_gpu, unread=["y"])
    count = 2 * NUM_SLOTS
    for first in range(0, count, NUM_SLOTS):  # the slots of what it reads are not its own
        worker.feed(NUM_SLOTS, first=first)
        worker.pass_until(first + NUM_SLOTS)
    assert begun == [("y", item) for item in range(count)]


def test_a_gpu_that_fails_is_told_when_its_run_is_done(open_worker, begun):
    worker = open_worker(Triple("x", "y", begun=begun))
    fake_torch.break_gpu("cuda:0")
    with worker.held(worker.gpu.compute):
        worker.feed(2)
        worker.run_all()
    wait_until(lambda: worker.num_woken == 2)
    with pytest.raises(GpuLost, match="ILLEGAL_ADDRESS"):
        worker.items.end_done()
    worker.driver.lost = None  # so that all can be given back


def test_an_end_with_runs_under_way_waits_for_them(open_worker, begun):
    worker = open_worker(Triple("x", "y", begun=begun))
    gate = worker.driver.streams[worker.gpu.compute.handle].gate
    gate.clear()
    worker.feed(DEPTH)
    worker.run_all()
    gate.set()
    worker.close()  # and the fixture sees that all was given back
    assert worker.driver.left() == {}
