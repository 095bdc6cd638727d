"""What everybody is told to drop, and when that is done."""

from types import SimpleNamespace

import pytest

from ipc.records import ItemAttempt
from ipc.replay_messages import DropItems, FreeItems, ItemsDropped
from runtime.admission import Admission
from runtime.droppings import Droppings
from runtime.host import Gpu
from runtime.plan_pools import PoolPlan

GPU = Gpu(0, "GPU-0", "H200", 2**30, 2**30)
ON_GPU, ON_HOST = PoolPlan("add/0", GPU, 4, 64, ()), PoolPlan("read/0", None, 4, 64, ())
READERS = {"mul/0": [ON_GPU], "write/0": []}


class Case:
    def __init__(self):
        self.sent = []
        self.admission = Admission(num_items=20, window=4)
        self.droppings = Droppings(
            SimpleNamespace(send=lambda worker, message: self.sent.append((worker, message))),
            SimpleNamespace(finish=lambda items: None, close_unused=tuple),
            SimpleNamespace(workers=(), window=4, pools_of=READERS.__getitem__),
            self.admission,
            in_job=set(READERS),
            restarts=SimpleNamespace(is_opening=False),
        )

    def take(self, kind):
        """Return what was sent of a kind, by worker, since this was asked last."""
        found = {worker: message for worker, message in self.sent if isinstance(message, kind)}
        self.sent.clear()
        return found

    def answer(self, worker, asked):
        dropped = ItemsDropped(sender=worker, incarnation=0, asked=asked)
        self.droppings.answered(dropped)


@pytest.fixture
def case():
    return Case()


def test_a_pool_on_a_gpu_is_open_until_all_who_read_it_have_answered(case):
    assert not case.droppings.has_open("add/0")
    case.droppings.begin((), {}, {}, {"add/0.0#1@cuda": ON_GPU, "read/0.0#1@host": ON_HOST})
    asked = case.take(DropItems)["mul/0"].asked
    assert case.droppings.has_open("add/0")
    assert not case.droppings.has_open("read/0"), "its pool takes nothing of a GPU"
    case.answer("write/0", asked)
    assert case.droppings.has_open("add/0")
    case.answer("mul/0", asked)
    assert not case.droppings.has_open("add/0")


def test_a_copy_of_what_is_durable_is_dropped_by_all_and_its_slots_are_freed(case):
    case.admission.admit()
    case.admission.lose([1])
    case.admission.retry([1])
    case.admission.admit()
    durable = (ItemAttempt(item=0, attempt=0), ItemAttempt(item=1, attempt=0))
    case.droppings.outdate(durable)
    case.admission.finish([0, 1])
    told = case.take(DropItems)
    assert told.keys() == READERS.keys()
    never = (ItemAttempt(item=1, attempt=2),)
    assert {message.items for message in told.values()} == {never}
    assert case.droppings.is_waiting
    assert case.droppings.outdated == never, "who opens the job now may still be sent it"
    for worker in READERS:
        case.answer(worker, told[worker].asked)
    assert not case.droppings.is_waiting
    assert {message.items for message in case.take(FreeItems).values()} == {never}
    assert [one.item for one in case.admission.admit()] == [4, 5], "it does not begin again"


def test_of_an_item_that_did_not_begin_again_yet_there_is_no_copy(case):
    case.admission.admit()
    case.admission.lose([1])
    case.droppings.outdate([ItemAttempt(item=1, attempt=0)])
    assert case.sent == []
    assert not case.droppings.is_waiting


def test_what_is_outdated_is_forgotten_when_the_window_has_passed_it(case):
    for oldest in range(20):
        case.admission.admit()
        case.admission.lose([oldest])
        case.admission.retry([oldest])
        case.admission.admit()
        case.droppings.outdate([ItemAttempt(item=oldest, attempt=0)])
        case.admission.finish([oldest])
    assert [one.item for one in case.droppings.outdated] == list(range(11, 20))
