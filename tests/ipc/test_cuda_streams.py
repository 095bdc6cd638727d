"""Streams, events and the waiter, with the fake driver."""

import threading
import weakref
from contextlib import contextmanager

import numpy as np
import pytest

from ipc.cuda import Event, Stream, Waiter
from ipc.errors import Closed, CudaError
from tests.waiting import wait_until

SLOT_BYTES = 4096
DICE = np.random.default_rng()


def fresh(nbytes=SLOT_BYTES):
    return DICE.integers(0, 256, nbytes, np.uint8)


@contextmanager
def held(fake, stream):
    """Let a stream stand still."""
    gate = fake.streams[stream.handle].gate
    gate.clear()
    try:
        yield
    finally:
        gate.set()


def test_a_stream_waits_for_an_event_of_another(fake, device, gpu_pool):
    written, first, last = fresh(), gpu_pool.pointer, gpu_pool.pointer + SLOT_BYTES
    found = np.full(SLOT_BYTES, 7, np.uint8)
    with Stream(device) as one, Stream(device) as two, Event(device) as there, Event(device) as end:
        with held(fake, one):
            one.copy(first, written.ctypes.data, SLOT_BYTES)
            there.record(one)
            two.wait(there)
            two.copy(last, first, SLOT_BYTES)
            two.copy(found.ctypes.data, last, SLOT_BYTES)
            end.record(two)
            assert fake.streams[two.handle].waits.wait(timeout=10)
            assert not there.done()
            assert not end.done()
        end.synchronize()
        assert there.done()
        assert end.done()
    assert np.array_equal(found, written)


def test_a_stream_of_somebody_else_is_used_and_not_closed(device, gpu_pool):
    written, found = fresh(), np.zeros(SLOT_BYTES, np.uint8)
    with Stream(device) as owned:
        with Stream.of(owned.handle) as stream:
            stream.copy(gpu_pool.pointer, written.ctypes.data, SLOT_BYTES)
        owned.copy(found.ctypes.data, gpu_pool.pointer, SLOT_BYTES)
        owned.synchronize()
    assert np.array_equal(found, written)


def test_an_event_that_was_never_recorded_is_done(device):
    with Event(device) as event:
        assert event.done()
        event.synchronize()


def test_a_thread_has_to_use_the_device_first(device, gpu_pool):
    memory, told = fresh(), []

    def work(first):
        first()
        try:
            copied.copy(gpu_pool.pointer, memory.ctypes.data, SLOT_BYTES)
            copied.synchronize()
        except CudaError as error:
            told.append(error.name)

    with Stream(device) as copied:
        for first in (lambda: None, device.use):
            thread = threading.Thread(target=work, args=(first,))
            thread.start()
            thread.join()
    assert told == ["CUDA_ERROR_INVALID_CONTEXT"]


def test_what_is_made_for_a_device_is_made_in_its_context_in_any_thread(device):
    told = []

    def make():
        with Stream(device) as stream, Event(device) as event:
            event.record(stream)
            event.synchronize()
            told.append(event.done())

    thread = threading.Thread(target=make)
    thread.start()
    thread.join()
    assert told == [True]


def test_a_waiter_calls_back_in_the_order_given(fake, device):
    told = []
    with Stream(device) as slow, Stream(device) as fast, Waiter(device) as waiter:
        fake.streams[slow.handle].gate.clear()
        with Event(device) as first, Event(device) as second:
            first.record(slow)
            second.record(fast)
            waiter.after(first, lambda error: told.append(("first", error)))
            waiter.after(second, lambda error: told.append(("second", error)))
            second.synchronize()
            assert told == []
            fake.streams[slow.handle].gate.set()
            waiter.stop()
    assert told == [("first", None), ("second", None)]


def test_a_waiter_takes_nothing_more_once_stopped(device):
    refused = []

    def stop(error):
        waiter.stop()
        with pytest.raises(Closed, match="cuda-waiter has ended") as caught:
            waiter.after(event, print)
        refused.append(caught.value)

    with Event(device) as event, Waiter(device) as waiter:
        waiter.after(event, stop)
        waiter.join(timeout=30)
        assert not waiter.is_alive()
    assert len(refused) == 1


def test_a_waiter_keeps_nothing_of_what_it_called_back(device):
    class View:
        pass

    view = View()
    alive, called = weakref.ref(view), threading.Event()

    def tell(error, view=view):
        called.set()

    with Event(device) as event, Waiter(device) as waiter:
        waiter.after(event, tell)
        del tell, view
        assert called.wait(timeout=30)
        wait_until(lambda: alive() is None)


def test_a_callback_that_raises_ends_the_waiter_as_it_would_any_thread(device, monkeypatch):
    raised = []
    monkeypatch.setattr(threading, "excepthook", lambda args: raised.append(args.exc_type))
    with Event(device) as event, Waiter(device) as waiter:
        waiter.after(event, lambda error: {}["missing"])
        waiter.join(timeout=30)
        assert raised == [KeyError]
        with pytest.raises(Closed):
            waiter.after(event, print)


def test_a_lost_context_is_told_to_all_who_wait(fake, device):
    told = []
    with Stream(device) as stream, Event(device) as event, Waiter(device) as waiter:
        fake.streams[stream.handle].gate.clear()
        event.record(stream)
        waiter.after(event, told.append)
        waiter.after(event, told.append)
        fake.lose("ILLEGAL_ADDRESS")
        waiter.stop()
        with pytest.raises(CudaError, match=r"cuEventQuery: CUDA_ERROR_ILLEGAL_ADDRESS \(700\)"):
            event.done()
    assert [(error.code, error.is_lost) for error in told] == [(700, True)] * 2
