import pytest

from ipc.messages import ItemFailed, ItemsDurable, ItemWritten
from ipc.records import ItemAttempt
from runtime.journal import DoneItems
from runtime.tally import MAX_FAILURES, Tally

FROM = {"incarnation": 0, "attempt": 0}


def written(item, units=1, failed=""):
    return ItemWritten(sender="write/0", item=item, units=units, failed=failed, **FROM)


def failed(item):
    return ItemFailed(
        sender="add/0", stage="add", item=item, error="ValueError: no", traceback="t", **FROM
    )


def durable(*items):
    return ItemsDurable(
        sender="write/0",
        incarnation=0,
        items=tuple(ItemAttempt(item=item, attempt=0) for item in items),
        files=(),
        counts={"numbers": len(items)},
    )


@pytest.fixture
def tally():
    tally = Tally(lambda _durable: None)
    tally.start(unit="numbers", num_units=10, num_items=10)
    return tally


def test_a_failed_item_is_no_done_one_although_its_place_is_durable(tally):
    tally.wrote(written(0))
    tally.wrote(written(1, units=0, failed="add: ValueError: no"))
    assert tally.items_done == 0, "nothing is durable yet"
    tally.durable(durable(0, 1))
    assert (tally.items_durable, tally.items_done, tally.items_failed) == (2, 1, 1)
    assert tally.units_durable == 1


@pytest.mark.parametrize("sink_first", [True, False])
def test_a_failure_is_told_by_two_workers_in_either_order(tally, sink_first):
    halves = [tally.wrote, tally.failed]
    messages = [written(1, units=0, failed="add: ValueError: no"), failed(1)]
    for index in (0, 1) if sink_first else (1, 0):
        assert tally.all_told == (index == (0 if sink_first else 1))
        halves[index](messages[index])
    assert tally.all_told
    tally.explain_rest()
    assert [one.traceback for one in tally.failures] == ["t"]


def test_the_sinks_word_is_taken_where_the_other_never_came(tally):
    tally.wrote(written(1, units=0, failed="add: ValueError: no: x"))
    tally.explain_rest()
    (failure,) = tally.failures
    assert (failure.stage, failure.error, failure.item) == ("add", "ValueError: no: x", 1)
    assert tally.all_told


def test_reasons_are_kept_of_the_first_failures_only(tally):
    for item in range(MAX_FAILURES + 5):
        tally.failed(failed(item))
        tally.wrote(written(item, units=0, failed="add: ValueError: no"))
    assert len(tally.failures) == MAX_FAILURES
    assert tally.items_failed == MAX_FAILURES + 5
    assert tally.all_told


def test_what_earlier_runs_have_done_counts_as_done():
    tally = Tally(lambda _durable: None)
    tally.resume(DoneItems(bytes([1, 1, 0, 1]), {"cuts": 2}, 2, (), 5, {3: "add: ValueError: no"}))
    assert (tally.items_durable, tally.items_done, tally.items_failed) == (3, 2, 1)
    assert (tally.units_done, tally.units_durable, tally.counts) == (5, 5, {"cuts": 2})
    (failure,) = tally.failures
    assert (failure.item, failure.stage, failure.error) == (3, "add", "ValueError: no")
    assert tally.all_told
    tally.wrote(written(2, units=4))
    assert (tally.units_of(2), tally.why_failed(2)) == (4, "")
    tally.durable(durable(2))
    assert (tally.items_durable, tally.units_done, tally.units_durable) == (4, 9, 9)


def test_the_journal_knows_better_than_a_count_that_was_interrupted():
    tally = Tally(lambda _durable: None)
    before = DoneItems(bytes([1, 1]), {"cuts": 2}, 1, (), 5)
    tally.resume(before)
    tally.recount(before, DoneItems(bytes([0, 0, 1]), {"cuts": 1}, 1, (), 2, {2: "add: no"}))
    assert (tally.items_durable, tally.items_done, tally.units_durable) == (3, 2, 7)
    assert tally.counts == {"cuts": 3}
