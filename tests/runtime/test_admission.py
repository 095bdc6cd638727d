from hypothesis import given
from hypothesis import strategies as st

from runtime.admission import Admission


def test_no_item_is_admitted_a_window_beyond_the_oldest_unfinished():
    admission = Admission(num_items=10, window=3)
    assert admission.admit() == [0, 1, 2]
    admission.finish([1, 2])
    assert admission.admit() == [], "item 0 is not finished"
    admission.finish([0])
    assert admission.admit() == [3, 4, 5]
    assert admission.unfinished() == [3, 4, 5]


def test_items_of_an_earlier_run_are_not_admitted_again():
    admission = Admission(num_items=6, window=2, durable=[0, 1, 3])
    assert admission.admit() == [2]
    admission.finish([2])
    assert admission.admit() == [4, 5]
    assert not admission.all_finished
    admission.finish([5, 4])
    assert admission.all_finished


def test_a_job_that_is_all_durable_has_nothing_to_do():
    assert Admission(num_items=3, window=2, durable=range(3)).all_finished


@given(st.integers(0, 40), st.integers(1, 9), st.randoms(use_true_random=False))
def test_every_item_is_admitted_once_in_order_and_within_the_window(num_items, window, random):
    admission = Admission(num_items=num_items, window=window)
    admitted, open_items, finished = [], [], set()
    while not admission.all_finished:
        fresh = admission.admit()
        admitted += fresh
        open_items += fresh
        oldest = min(set(range(num_items)) - finished)
        assert all(item < oldest + window for item in open_items)
        item = open_items.pop(random.randrange(len(open_items)))
        finished.add(item)
        admission.finish([item])
    assert admitted == list(range(num_items))


def test_a_drained_job_ends_with_the_segments_that_have_begun():
    admission = Admission(num_items=20, window=6)
    assert admission.admit() == [0, 1, 2, 3, 4, 5]
    admission.end_with_segment(4)
    admission.finish([0, 1, 2, 3])
    assert admission.admit() == [6, 7]
    admission.end_with_segment(4)
    admission.finish([4, 5, 6, 7])
    assert admission.admit() == []
    assert admission.all_finished


def test_a_job_that_is_drained_before_it_began_has_nothing_to_do():
    admission = Admission(num_items=20, window=6)
    admission.end_with_segment(4)
    assert admission.admit() == []
    assert admission.all_finished
