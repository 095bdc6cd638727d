"""A worker whose stages come before and after another one, and that died in between."""

from contextlib import closing

import pytest

from ipc.host import HostPool
from ipc.records import TensorHandle, TensorPlace
from runtime.memory import JobMemory

BEFORE = TensorPlace(name="p", offset=0, shape=(4,), dtype="float32", readers=("b",))
AFTER = TensorPlace(name="r", offset=16, shape=(4,), dtype="float32", readers=("write",))
OLD = TensorHandle(pool="a+c/0.0#1@host", slot=0, offset=0, shape=(4,), dtype="float32")


@pytest.fixture
def memory():
    """Of the second incarnation, with one slot."""
    with closing(HostPool("a+c/0.1#1@host", owner="a+c/0", num_slots=1, slot_bytes=64)) as pool:
        name = pool.address.name
        places = {name: (BEFORE, AFTER)}
        with closing(
            JobMemory("a+c/0", (pool.address,), {name: "a+c/0"}, places, {"numpy"})
        ) as memory:
            yield memory


def test_a_slot_does_not_wait_for_what_the_last_incarnation_wrote_elsewhere(memory):
    """Such slots were never free again, and after a few the run stood still."""
    written = memory.lease(4, 0, ("r",), {"p": OLD})
    memory.written(4, 0, ("r",))
    assert not memory.can_lease(5, 0, ("p",))
    memory.free(written["r"].pool, written["r"].slot, 4, 0, "write")
    assert memory.can_lease(5, 0, ("p",))


def test_a_slot_of_an_item_that_began_here_waits_for_both(memory):
    written = memory.lease(4, 0, ("p",))
    memory.written(4, 0, ("p",))
    memory.free(written["p"].pool, written["p"].slot, 4, 0, "b")
    assert memory.lease(4, 0, ("r",), written)["r"].slot == written["p"].slot
    memory.free(written["p"].pool, written["p"].slot, 4, 0, "write")
    assert not memory.can_lease(5, 0, ("p",)), "it is being written"
    memory.written(4, 0, ("r",))
    assert memory.can_lease(5, 0, ("p",))
