"""Which attempts count, as one worker knows it."""

from runtime.newest import Newest


def test_nothing_is_old_until_a_newer_attempt_is_announced():
    newest = Newest(4)
    assert not newest
    assert not newest.is_old(3, 0)
    newest.raise_to({3: 1})
    assert newest
    assert [newest.is_old(3, attempt) for attempt in (0, 1, 2)] == [True, False, False]
    assert not newest.is_old(4, 0)


def test_each_item_has_its_own():
    newest = Newest(4)
    newest.raise_to({3: 1, 4: 1})
    newest.raise_to({4: 2})
    assert newest.is_old(3, 0)
    assert newest.is_old(4, 1)


def test_items_that_the_window_has_passed_are_forgotten_and_no_others():
    newest = Newest(4)
    newest.raise_to({0: 1, 7: 1})
    newest.raise_to({8: 1})
    assert newest.is_old(0, 0), "twice the window is kept"
    newest.raise_to({9: 1})
    assert not newest.is_old(0, 0)
    assert newest.is_old(7, 0)
    newest.raise_to({})
    assert newest.is_old(9, 0)
