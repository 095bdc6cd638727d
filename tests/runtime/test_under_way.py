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


class Watched:
    """Memory that shows what is found after each word that is written."""

    def __init__(self, words, look):
        self._words, self._look, self.seen = words, look, []

    def __setitem__(self, at, value):
        self._words[at] = value
        self.seen.append(self._look())


def test_whenever_a_worker_dies_while_it_notes_there_is_nothing_or_a_whole_note(
    notes, worker, monkeypatch
):
    with monkeypatch.context() as patched:
        watched = Watched(worker._words, notes.read)
        patched.setattr(worker, "_words", watched)
        worker.note(RUNS, 7, 1, 2)
        worker.clear(RUNS)
        worker.note(RUNS, 8, 3, 4)
    assert watched.seen == [(), (), (Noted(7, 1, 2),), (), (), (), (Noted(8, 3, 4),)]


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
