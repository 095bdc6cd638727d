from hypothesis import given
from hypothesis import strategies as st

from runtime.admission import Admission


def items(admitted):
    """Return the items of what was admitted, all of it for the first time."""
    assert all((one.attempt, one.failed) == (0, "") for one in admitted)
    return [one.item for one in admitted]


def test_no_item_is_admitted_a_window_beyond_the_oldest_unfinished():
    admission = Admission(num_items=10, window=3)
    assert items(admission.admit()) == [0, 1, 2]
    admission.finish([1, 2])
    assert admission.admit() == [], "item 0 is not finished"
    admission.finish([0])
    assert items(admission.admit()) == [3, 4, 5]
    assert admission.unfinished() == [3, 4, 5]


def test_items_of_an_earlier_run_are_not_admitted_again():
    admission = Admission(num_items=6, window=2, durable=[(0, 2), (3, 4)])
    assert items(admission.admit()) == [2]
    admission.finish([2])
    assert items(admission.admit()) == [4, 5]
    assert not admission.all_finished
    admission.finish([5, 4])
    assert admission.all_finished


def test_a_job_that_is_all_durable_has_nothing_to_do():
    assert Admission(num_items=3, window=2, durable=[(0, 3)]).all_finished


@given(st.integers(0, 40), st.integers(1, 9), st.randoms(use_true_random=False))
def test_every_item_is_admitted_once_in_order_and_within_the_window(num_items, window, random):
    admission = Admission(num_items=num_items, window=window)
    admitted, open_items, finished = [], [], set()
    while not admission.all_finished:
        fresh = items(admission.admit())
        admitted += fresh
        open_items += fresh
        oldest = min(set(range(num_items)) - finished)
        assert all(item < oldest + window for item in open_items)
        item = open_items.pop(random.randrange(len(open_items)))
        finished.add(item)
        admission.finish([item])
    assert admitted == list(range(num_items))


def lose(admission, *lost):
    """Lose items, and have nothing left of them."""
    attempts = admission.lose(lost)
    admission.retry(lost)
    return attempts


def begun(admission):
    return [(one.item, one.attempt) for one in admission.admit()]


def test_lost_items_come_again_before_new_ones_and_in_order():
    admission = Admission(num_items=10, window=4)
    admission.admit()
    admission.finish([0])
    assert lose(admission, 3, 1) == {1: 1, 3: 1}
    assert begun(admission) == [(1, 1), (3, 1), (4, 0)]
    assert admission.under_way() == {1: 1, 2: 0, 3: 1, 4: 0}


def test_a_lost_item_waits_until_nothing_is_left_of_it():
    admission = Admission(num_items=3, window=3)
    admission.admit()
    admission.lose([1])
    assert (admission.admit(), admission.under_way()) == ([], {0: 0, 2: 0})
    admission.retry([1])
    assert begun(admission) == [(1, 1)]


def test_a_lost_item_that_proves_finished_does_not_come_again():
    admission = Admission(num_items=2, window=2)
    admission.admit()
    admission.lose([0])
    admission.finish([0])
    admission.retry([0])
    assert admission.admit() == []


def test_what_ran_at_a_death_is_tried_alone_until_its_stage_is_done_with_it():
    admission = Admission(num_items=10, window=5)
    admission.admit()
    attempts = admission.lose([1, 2, 3])
    assert not admission.blame(2, 1, "it kills", alone=True)
    admission.retry(attempts)
    assert begun(admission) == [(2, 1)]
    assert admission.admit() == [], "the others wait"
    admission.passed(2, 1, 0)
    assert admission.admit() == [], "an earlier stage than the one that it ran in"
    admission.passed(2, 1, 1)
    assert begun(admission) == [(1, 1), (3, 1)]


def test_an_item_that_kills_twice_comes_once_more_marked():
    admission = Admission(num_items=10, window=3)
    admission.admit()
    lose(admission, 1)
    assert not admission.blame(1, 2, "why", alone=True)
    assert begun(admission) == [(1, 1)]
    lose(admission, 1)
    assert admission.blame(1, 2, "why", alone=True) == "why"
    assert [(one.item, one.attempt, one.failed) for one in admission.admit()] == [(1, 2, "why")]
    assert admission.is_given_up(1)


def test_deaths_at_different_stages_are_not_the_items_fault():
    admission = Admission(num_items=3, window=3)
    admission.admit()
    for position in (1, 2):
        lose(admission, 0)
        assert not admission.blame(0, position, "why", alone=False)


def test_draining_completes_the_segments_that_have_begun():
    admission = Admission(num_items=100, window=6)
    assert items(admission.admit()) == [0, 1, 2, 3, 4, 5]
    admission.drain(4)
    admission.finish(range(4))
    assert items(admission.admit()) == [6, 7]
    assert not admission.is_drained
    admission.finish(range(4, 8))
    assert (admission.admit(), admission.is_drained) == ([], True)
    assert not admission.all_finished


def test_a_job_that_is_drained_before_it_began_has_nothing_to_do():
    admission = Admission(num_items=20, window=6)
    admission.drain(4)
    assert (admission.admit(), admission.is_drained) == ([], True)
