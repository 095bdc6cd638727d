"""What a worker notes of what it runs, and what is found of it when it is dead."""

import pytest

from runtime.under_way import BEGINS, RUNS, Noted, Notes, UnderWay


@pytest.fixture
def notes():
    with Notes("denoise/0") as made:
        yield made


@pytest.fixture
def worker(notes):
    made = UnderWay(notes.address)
    yield made
    made.close()


def test_who_runs_nothing_has_noted_nothing(notes, worker):
    assert notes.read() == ()


def test_what_runs_is_noted_until_it_ends(notes, worker):
    worker.note(RUNS, 0, 0, 2)
    assert notes.read() == (Noted(0, 0, 2),)
    worker.note(RUNS, 7, 3, 2)
    assert notes.read() == (Noted(7, 3, 2),)
    worker.clear(RUNS)
    assert notes.read() == ()


def test_what_is_queued_behind_it_is_noted_beside_it(notes, worker):
    worker.note(BEGINS, 8, 0, 3)
    worker.note(RUNS, 7, 1, 2)
    assert notes.read() == (Noted(7, 1, 2), Noted(8, 0, 3))
    worker.clear(RUNS)
    assert notes.read() == (Noted(8, 0, 3),)


def test_what_runs_while_it_is_being_queued_is_found_once(notes, worker):
    worker.note(RUNS, 7, 1, 2)
    worker.note(BEGINS, 7, 1, 2)
    assert notes.read() == (Noted(7, 1, 2),)


def test_a_note_that_is_half_written_is_none(notes, worker):
    """The item's number is written last."""
    worker.note(RUNS, 7, 1, 2)
    worker.clear(RUNS)
    worker._words[1:3] = worker._words[1:3]  # attempt and position, before the item
    assert notes.read() == ()


def test_a_worker_begins_with_nothing_noted(notes, worker):
    worker.note(RUNS, 7, 1, 2)
    again = UnderWay(notes.address)
    assert notes.read() == ()
    again.close()


def test_what_was_noted_outlives_the_worker(notes):
    worker = UnderWay(notes.address)
    worker.note(RUNS, 7, 1, 2)
    worker.close()
    assert notes.read() == (Noted(7, 1, 2),)
