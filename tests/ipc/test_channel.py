import os
import signal

import pytest
import zmq

from ipc.channel import Inbox, Outbox, Watch
from ipc.errors import PeerLost, ProtocolError, WouldBlock
from ipc.messages import Stop

STOP = Stop(sender="supervisor", incarnation=0)


@pytest.fixture
def zmq_context():
    with zmq.Context() as context:
        yield context


@pytest.fixture
def inbox(zmq_context, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with Inbox(zmq_context, "ipc://box") as inbox:
        yield inbox


def test_messages_arrive_in_the_order_they_were_sent(inbox, zmq_context):
    with Outbox(zmq_context, inbox.endpoint) as outbox:
        for number in range(100):
            outbox.send(Stop(sender="a", incarnation=number))
        watch = Watch(inbox)
        received = []
        while len(received) < 100:
            watch.wait(timeout_s=5)
            received.append(inbox.receive().incarnation)
    assert received == list(range(100))


def test_an_empty_inbox_would_block(inbox):
    with pytest.raises(WouldBlock, match="ipc://box: no message"):
        inbox.receive()


def test_waits_that_saw_a_message_make_nobody_take_it_twice_or_miss_the_next(inbox, zmq_context):
    watch, other = Watch(inbox), Watch(inbox)
    with Outbox(zmq_context, inbox.endpoint) as outbox:
        for _time in range(3):
            outbox.send(STOP)
            for each in (watch, other, watch):
                assert each.wait(timeout_s=5) == set()
            assert inbox.try_receive() == STOP
            assert inbox.try_receive() is None
            assert watch.wait(timeout_s=0.01) == set()
            assert inbox.try_receive() is None


def test_all_that_has_come_is_taken_after_one_wait(inbox, zmq_context):
    numbers = range(20)
    with Outbox(zmq_context, inbox.endpoint) as outbox, Outbox(zmq_context, inbox.endpoint) as last:
        for number in numbers:
            outbox.send(Stop(sender="a", incarnation=number))
        watch, received = Watch(inbox), []
        while len(received) < len(numbers):
            watch.wait(timeout_s=5)
            while (message := inbox.try_receive()) is not None:
                received.append(message.incarnation)
        last.send(STOP)  # the inbox was found empty: this must wake us again
        watch.wait(timeout_s=5)
        assert inbox.try_receive() == STOP
    assert received == list(numbers)


def test_a_wait_for_nothing_else_returns_one_message_and_leaves_the_others(inbox, zmq_context):
    watch = Watch(inbox)
    with Outbox(zmq_context, inbox.endpoint) as outbox:
        for number in range(3):
            outbox.send(Stop(sender="a", incarnation=number))
        assert inbox.wait().incarnation == 0
        watch.wait(timeout_s=5)
        assert inbox.wait().incarnation == 1  # what the watch saw is taken by now
        watch.wait(timeout_s=5)
        assert inbox.receive().incarnation == 2
        outbox.send(STOP)
        watch.wait(timeout_s=5)
        assert inbox.wait() == STOP
        assert inbox.try_receive() is None


def test_a_wait_for_nothing_else_sleeps_on_after_a_signal(inbox, zmq_context):
    heard = []

    def send_at_the_third(signum, _frame):
        heard.append(signum)
        if len(heard) == 3:
            signal.setitimer(signal.ITIMER_REAL, 0)
            outbox.send(STOP)

    before = signal.signal(signal.SIGALRM, send_at_the_third)
    try:
        with Outbox(zmq_context, inbox.endpoint) as outbox:
            signal.setitimer(signal.ITIMER_REAL, 0.01, 0.01)
            assert inbox.wait() == STOP
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert len(heard) == 3


def test_what_is_no_message_of_ours_is_a_protocol_error(inbox, zmq_context):
    with zmq_context.socket(zmq.PUSH) as stranger:
        stranger.connect(inbox.endpoint)
        for parts in ([b"hello"], [b"a", b"b"]):
            stranger.send_multipart(parts)
            Watch(inbox).wait(timeout_s=5)
            for _part in parts:
                with pytest.raises(ProtocolError):
                    inbox.receive()
        stranger.send(b"hello")
        with pytest.raises(ProtocolError):
            inbox.wait()
        assert inbox.try_receive() is None


def test_one_wait_wakes_on_a_message_and_on_a_death_alike(inbox, zmq_context):
    read, write = os.pipe()
    watch = Watch(inbox)
    watch.add(read)
    with Outbox(zmq_context, inbox.endpoint) as outbox:
        outbox.send(STOP)
        assert watch.wait(timeout_s=5) == set()
        assert inbox.receive() == STOP
    assert watch.wait(timeout_s=0.01) == set()
    os.close(write)
    assert watch.wait(timeout_s=5) == {read}
    watch.remove(read)
    os.close(read)
    assert watch.wait(timeout_s=0.01) == set()


def test_sending_to_a_peer_that_is_gone_says_so_and_does_not_wait(zmq_context, tmp_path):
    with Inbox(zmq_context, f"ipc://{tmp_path}/gone") as inbox:
        outbox = Outbox(zmq_context, inbox.endpoint)
        outbox.send(STOP)
        Watch(inbox).wait(timeout_s=5)
        inbox.receive()

    def send_until_the_broken_connection_is_noticed():
        for _attempt in range(100_000):
            outbox.send(STOP)

    with outbox, pytest.raises(PeerLost, match="gone: nobody takes messages there"):
        send_until_the_broken_connection_is_noticed()


def test_a_message_too_large_is_refused_where_it_is_sent(inbox, zmq_context):
    """The inbox would drop it, and everything that comes after it from there."""
    with Outbox(zmq_context, inbox.endpoint) as outbox:
        with pytest.raises(ProtocolError, match=r"Stop of 5000.* bytes; at most 4194304 travel"):
            outbox.send(Stop(sender="a" * 5_000_000, incarnation=0))
        outbox.send(STOP)
        Watch(inbox).wait(timeout_s=5)
        assert inbox.receive() == STOP


def test_a_path_too_long_for_a_socket_is_refused_with_the_limit(zmq_context):
    with pytest.raises(ValueError, match="at most 107 bytes"):
        Inbox(zmq_context, "ipc:///" + "x" * 107)
