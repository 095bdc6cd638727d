"""A GPU that is none, for the tests of ipc/cuda.py."""

import sys

import pytest

from ipc.cuda import CudaPool, Device
from tests.ipc.fake_driver import FakeDriver

SLOT_BYTES = 4096


@pytest.fixture
def fake(monkeypatch):
    """Put the fake driver in place of the real one; see that all is given back."""
    driver = FakeDriver()
    monkeypatch.setitem(sys.modules, "cuda.bindings.driver", driver)
    yield driver
    driver.join()
    assert driver.left() == {}


@pytest.fixture
def device(fake):
    with Device(0) as opened:
        yield opened


@pytest.fixture
def gpu_pool(device):
    with CudaPool(device, "a@gpu", owner="add/0", num_slots=4, slot_bytes=SLOT_BYTES) as made:
        yield made
