"""A worker whose GPU still has what the one before it left there: it loads when that is gone."""

from types import SimpleNamespace

import pytest

from ipc.setup_messages import Configured, Load, Loaded, Started
from runtime.config import parse_config
from runtime.host import Gpu
from runtime.restart import LOOK_S, MEMORY_S, Ask, GpuMemory, Until, come_back
from runtime.worker_plan import WorkerPlan
from tests.runtime.restart_play import Clock

GIB = 2**30
GPU = Gpu(0, "GPU-0", "H200", 140 * GIB, 100 * GIB)
PLAN = WorkerPlan("add/0", ("add",), GPU, 1)
STAGES = {
    "read": {"use": "tests.fakes:Numbers"},
    "add": {"use": "tests.fakes:Add"},
    "write": {"use": "tests.fakes:Lines"},
}


class Driver:
    """Gives memory back as a test says, one figure at each look."""

    def __init__(self, *free, closed_after=0):
        self._free, self._looks_open = list(free), closed_after
        self.looked = []

    def free_bytes(self, uuid):
        assert uuid == GPU.uuid
        free = self._free.pop(0) if len(self._free) > 1 else self._free[0]
        self.looked.append(free)
        return free

    def is_open(self, worker):
        assert worker == PLAN.name
        self._looks_open -= 1
        return self._looks_open >= 0


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr("runtime.restart.time", clock)
    return clock


def load_after(clock, driver, *, room):
    """Return how long a restarted worker waits until it is told to load."""
    config = parse_config({"pipeline": "fake", "stages": STAGES})
    opened = SimpleNamespace(
        plan=SimpleNamespace(path=tuple(STAGES), room={PLAN.name: room}), facts=b"", item_size=1
    )
    memory = GpuMemory(driver.free_bytes, driver.is_open)
    steps, began = come_back(PLAN, config, opened, None, memory), clock.now
    assert next(steps).kind is Started
    assert steps.send(None).kind is Configured
    step = steps.send(None)
    while isinstance(step, Until):
        assert step.when - clock.now == pytest.approx(LOOK_S), "it is not looked all the time"
        clock.now = step.when
        step = steps.send(None)
    assert isinstance(step, Ask)
    assert (type(step.question), step.kind) == (Load, Loaded)
    return clock.now - began


def test_a_pause_while_memory_comes_back_is_waited_out(clock):
    """A driver frees tens of gigabytes piece by piece, for seconds."""
    driver = Driver(5 * GIB, 5 * GIB, 5 * GIB, 20 * GIB, 20 * GIB, 60 * GIB)
    load_after(clock, driver, room=50 * GIB)
    assert driver.looked[-1] == 60 * GIB


def test_memory_that_still_comes_back_is_waited_for_though_there_is_enough(clock):
    driver = Driver(60 * GIB, 70 * GIB, 80 * GIB)
    load_after(clock, driver, room=50 * GIB)
    assert driver.looked == [60 * GIB, 70 * GIB, 80 * GIB, 80 * GIB]


def test_it_loads_only_when_nobody_has_the_pool_of_the_dead_open(clock):
    driver = Driver(60 * GIB, closed_after=300)
    assert load_after(clock, driver, room=50 * GIB) == pytest.approx(301 * LOOK_S)
    assert len(driver.looked) == 2, "before that no figure says anything"


def test_memory_that_does_not_come_back_is_given_up_with_numbers(clock, caplog):
    waited_s = load_after(clock, Driver(5 * GIB), room=50 * GIB)
    assert MEMORY_S <= waited_s <= MEMORY_S + 2 * LOOK_S
    assert [record.getMessage() for record in caplog.records] == [
        "memory not back worker=add/0 device=cuda:0: 5.0 GiB are free after 30 s, "
        "50.0 GiB are needed; it loads all the same"
    ]


def test_where_nobody_tells_of_a_gpu_it_loads_at_once(clock):
    assert load_after(clock, Driver(None), room=50 * GIB) == 0
