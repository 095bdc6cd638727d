"""What a stage has begun before it loads and prepares is what it goes on with."""

import threading
from dataclasses import replace

import pytest

import stages.eden.stage as eden_stage
from stages.eden import Encode
from stages.eden.programs import Direct
from tests.waiting import wait_until

TINY = "random:3:tiny"


class Begun(Direct):
    """A program as on a GPU: it is begun when it is made."""

    def __init__(self, *given) -> None:
        super().__init__(*given)
        self.waited = self.captured = False

    def wait(self) -> None:
        self.waited = True

    def capture(self) -> None:
        self.captured = True


class Begins(Encode):
    """Begins as on a GPU, and keeps what it has begun."""

    _captures = True

    def _make_program(self, inputs, outputs):
        self.begun.append(Begun(self._compute, self._device))
        return self.begun[-1]


@pytest.fixture
def begins():
    stage = Begins(weights=TINY)
    stage.begun = []
    stage.load("cpu")
    yield stage
    stage.close()


def test_prepare_goes_on_with_what_has_begun(begins, facts_of):
    begins.begin_prepare(facts_of(), 2)
    assert [one.captured for one in begins.begun] == [False]
    assert begins.prepare(facts_of(), 2) == 2
    assert [one.captured for one in begins.begun] == [True]
    begins.begin_prepare(replace(facts_of(), num_frames=99), 2)  # nothing to make for that
    assert len(begins.begun) == 1


def test_what_has_begun_for_a_larger_size_or_another_job_is_waited_for_and_dropped(
    begins, facts_of
):
    begins.begin_prepare(facts_of(), 2)
    assert begins.prepare(facts_of(), 1) == 1
    begins.begin_prepare(facts_of(50, 38), 2)
    assert begins.prepare(facts_of(), 2) == 2
    begins.begin_prepare(facts_of(50, 38), 2)
    begins.close()
    assert [(one.waited, one.captured) for one in begins.begun] == [
        (True, False),
        (False, True),
        (True, False),
        (False, True),
        (True, False),
    ]


def test_load_takes_what_has_been_read_since_it_began(monkeypatch):
    read, threads = eden_stage.read_tensors, []

    def reading(*given):
        threads.append(threading.current_thread())
        return read(*given)

    monkeypatch.setattr(eden_stage, "read_tensors", reading)
    stage = Encode(weights=TINY)
    stage.begin_load("cpu")
    stage.load("cpu")
    assert len(threads) == 1
    wait_until(lambda: not threads[0].is_alive())
    stage.close()
