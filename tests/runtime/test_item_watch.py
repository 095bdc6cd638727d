import pytest

from ipc.messages import Heartbeat
from ipc.records import JobUsage
from runtime.item_watch import AT_LEAST_S, ItemWatch, Stuck


def beat(item, running_s, *, progress=0.0, incarnation=0, attempt=0):
    return Heartbeat(
        sender="add/0",
        incarnation=incarnation,
        item=item,
        attempt=attempt,
        running_s=running_s,
        progress=progress,
        num_here=1,
        waits_for="",
        usage=JobUsage(),
    )


def test_an_item_may_take_20_times_as_long_as_the_slowest_before_it():
    watch = ItemWatch(None)
    assert watch.limit_s == AT_LEAST_S
    for running_s in (0.5, 5.0):
        assert watch.beat(beat(0, running_s)) is None
    assert watch.beat(beat(1, 0.1)) is None
    assert watch.limit_s == 100
    assert watch.beat(beat(1, 99.9)) is None
    assert watch.beat(beat(1, 100.5)) == Stuck(item=1, waited_s=100.5)


def test_the_run_of_prepare_counts_as_an_item():
    watch = ItemWatch(None)
    watch.took(10.0)
    assert watch.limit_s == 200


def test_an_item_that_gets_on_may_take_for_ever():
    watch = ItemWatch(2.0)
    for step in range(100):
        assert watch.beat(beat(0, step * 1.5, progress=step / 100)) is None
    assert watch.beat(beat(0, 99 * 1.5 + 2.5, progress=0.99)) == Stuck(item=0, waited_s=2.5)


def test_a_worker_that_waits_is_not_stuck():
    watch = ItemWatch(1.0)
    for seconds in range(100):
        assert watch.beat(beat(-1, float(seconds))) is None


@pytest.mark.parametrize("changed", [{"incarnation": 1}, {"attempt": 1}])
def test_what_runs_again_begins_anew(changed):
    watch = ItemWatch(2.0)
    assert watch.beat(beat(0, 1.5)) is None
    assert watch.beat(beat(0, 1.9, **changed)) is None
    assert watch.beat(beat(0, 2.1, **changed)) == Stuck(item=0, waited_s=2.1)


def test_what_a_dead_incarnation_was_at_says_nothing_of_how_long_items_take():
    watch = ItemWatch(None)
    watch.beat(beat(0, 50.0))
    watch.beat(beat(1, 0.1, incarnation=1))
    assert watch.limit_s == AT_LEAST_S
