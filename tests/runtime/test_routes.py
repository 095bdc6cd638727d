import pytest

from ipc.messages import ItemReady
from ipc.records import TensorHandle
from runtime.routes import Route

WORKERS = ("denoise/0", "denoise/1", "denoise/2")


def ready(item, *, owners=("encode/0",), failed=""):
    handles = {
        owner: TensorHandle(pool=f"{owner}.0@host#1", slot=0, offset=0, shape=(1,), dtype="uint8")
        for owner in owners
    }
    return ItemReady(
        sender="encode/0",
        incarnation=0,
        stage="denoise",
        item=item,
        attempt=0,
        handles=handles,
        meta=b"",
        failed=failed,
    )


def make(rule="least_loaded", workers=WORKERS, items_per_segment=1):
    return Route(
        "denoise",
        workers,
        rule=rule,
        items_per_segment=items_per_segment,
        owner=lambda pool: pool.rpartition(".")[0],
    )


def places(sends):
    return [(worker, message.item) for worker, message in sends]


def test_the_replica_with_the_fewest_unfreed_items_gets_the_next():
    route = make()
    assert [places(route.offer(ready(i))) for i in range(4)] == [
        [("denoise/0", 0)],
        [("denoise/1", 1)],
        [("denoise/2", 2)],
        [("denoise/0", 3)],
    ]
    route.freed(1, 0)
    assert places(route.offer(ready(4))) == [("denoise/1", 4)]


def test_no_replica_gets_more_than_one_beyond_the_one_it_runs():
    route = make()
    for item in range(6):
        route.offer(ready(item))
    assert route.offer(ready(6)) == []
    assert route.offer(ready(7)) == []
    assert places(route.freed(4, 0)) == [("denoise/1", 6)], "to whoever is free first, in order"


def test_a_single_replica_takes_everything():
    route = make(workers=("denoise/0",))
    assert all(route.offer(ready(item)) for item in range(50))


def test_replicas_take_turns_on_request():
    route = make(rule="round_robin")
    assert [w for i in range(5) for w, _ in places(route.offer(ready(i)))] == [
        *WORKERS,
        *WORKERS[:2],
    ]


def test_a_segment_of_a_sink_goes_to_one_replica_however_busy_it_is():
    route = make(rule="segment", items_per_segment=4)
    sent = [places(route.offer(ready(item)))[0][0] for item in range(16)]
    assert sent == [WORKERS[i // 4 % 3] for i in range(16)]


def test_an_item_goes_back_to_the_worker_that_holds_its_tensors():
    route = make()
    route.offer(ready(0))
    assert places(route.offer(ready(1, owners=("read/0", "denoise/0")))) == [("denoise/0", 1)]


@pytest.mark.parametrize("attempt", [0, 1])
def test_a_reader_that_lets_go_of_two_slots_counts_once(attempt):
    route = make()
    route.offer(ready(0))
    assert route.freed(0, 0) == []
    assert route.freed(0, attempt) == []
    assert places(route.offer(ready(1))) == [("denoise/0", 1)]


def test_failed_items_are_no_load_since_nobody_may_let_go_of_them():
    """One that holds nothing of the sender's is never let go of: it would count for ever."""
    route = make()
    for item in range(20):
        (sent,) = places(route.offer(ready(item, owners=(), failed="add: ValueError: no")))
        assert sent == ("denoise/0", item)
    assert route.sent() == {}
    assert [places(route.offer(ready(i)))[0][0] for i in range(20, 23)] == list(WORKERS)
    assert route.freed(3, 0) == [], "one that did hold something"
