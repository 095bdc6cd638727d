"""Workers on their way back, with a fleet that is played: orders that processes show rarely."""

import pytest

from ipc.setup_messages import JobOpened, Load, Loaded, Started
from runtime.crew import ME
from runtime.errors import WorkerDied
from runtime.restart import Ask, CannotReturn, Until
from tests.runtime.restart_play import NAMES, PLANS, Clock, Play


@pytest.fixture
def play(monkeypatch):
    clock = Clock()
    monkeypatch.setattr("runtime.restarts.time", clock)
    return Play(clock)


def died(name):
    return WorkerDied(name, -9)


def test_a_worker_is_started_asked_met_and_only_then_in_the_job(play):
    play.die("add/0")
    assert play.sent("add/0") == ["bury", "begin"]
    assert play.restarts.is_unknown("add/0")
    play.load("add/0")
    assert play.sent() == ["connect", "Load", "MeetPeer", "MeetPeer", "MeetPeer"]
    assert play.pools.renewed == ["add/0"]
    play.met("add/0", ["read/0", "add/1"])
    assert play.sent("add/0") == [], "the sink has not opened its pools"
    play.met("add/0", ["write/0"])
    assert play.sent("add/0") == ["SimpleNamespace"], "it is told to open the job"
    assert play.restarts.is_away("add/0")
    assert play.tell(JobOpened, "add/0")
    assert not play.restarts.is_away("add/0")
    assert play.joined == ["add/0"]
    assert play.in_job == set(NAMES)


@pytest.mark.parametrize("order", [("add/0", "add/1"), ("add/1", "add/0")])
def test_two_that_come_back_together_know_each_other(play, order):
    """By what they are told when they open the job, or by a message after that."""
    play.die("add/0")
    play.die("add/1")
    play.sent()
    for name in order:
        play.load(name)
    assert play.pools.renewed == [order[0]], "one after the other"
    for _turn in range(6):
        for name, by in play.take_meetings():
            play.knows.setdefault(by, set()).add(name)
            play.tell_met(name, by, 1)
        for name in order:
            if "SimpleNamespace" in play.sent(name):
                play.tell(JobOpened, name)
    assert sorted(play.joined) == ["add/0", "add/1"]
    for name, other in (order, order[::-1]):
        assert play.knows[name] >= {"read/0", "write/0", other}


def test_who_dies_before_it_met_a_peer_is_not_waited_for(play):
    play.die("add/0")
    play.load("add/0")
    play.met("add/0", ["read/0", "add/1"])
    play.die("write/0")
    assert "SimpleNamespace" in play.sent("add/0")


def test_who_met_an_incarnation_that_is_dead_by_now_has_not_met_the_next(play):
    play.die("add/0")
    play.load("add/0")
    play.met("add/0", ["read/0", "add/1"])
    play.die("add/0")
    play.pass_time(10)
    play.load("add/0")
    play.sent()
    play.tell_met("add/0", "write/0", incarnation=1)
    for sender in ("read/0", "add/1"):
        play.tell_met("add/0", sender, incarnation=2)
    assert play.sent("add/0") == [], "the sink has opened the pools of the one before"
    play.tell_met("add/0", "write/0", incarnation=2)
    assert play.sent("add/0") == ["SimpleNamespace"]


def test_a_start_that_fails_is_tried_again_later_each_time_and_then_ends_the_run(play):
    play.die("add/0")
    for delay_s in (0.25, 1.0):
        play.restarts.failed("add/0", died("add/0"))
        play.sent()
        assert play.restarts.deadline == play.clock.now + delay_s
        play.pass_time(delay_s - 0.1)
        assert play.sent() == []
        play.pass_time(0.2)
        assert play.sent() == ["begin"]
    with pytest.raises(WorkerDied):
        play.restarts.failed("add/0", died("add/0"))
    assert "add/0" not in play.fleet.workers, "it is buried all the same"
    assert play.closed == ["add/0"] * 3, "what it was asked is not waited for"


def test_a_worker_that_was_there_again_has_all_its_tries_anew(play):
    for _death in range(4):
        play.die("add/0")
        for _failure in range(2):
            play.restarts.failed("add/0", died("add/0"))
            play.pass_time(10)
        play.load("add/0")
        play.met("add/0", ["read/0", "add/1", "write/0"])
        play.tell(JobOpened, "add/0")
    assert play.joined == ["add/0"] * 4


def test_who_dies_before_the_job_is_open_there_counts_as_a_failed_start(play):
    """Else one that dies of opening it would come back for ever."""
    play.die("add/0")
    for _failure in range(2):
        play.pass_time(10)
        play.load("add/0")
        play.met("add/0", ["read/0", "add/1", "write/0"])
        play.die("add/0")
    play.pass_time(10)
    play.load("add/0")
    with pytest.raises(WorkerDied):
        play.die("add/0")
    assert play.joined == ["add/0"] * 3, "others knew of it each time"


@pytest.mark.parametrize("what", ["steps", "pools"])
def test_who_cannot_be_what_it_was_counts_as_a_failed_start(play, what):
    def smaller(plan):
        yield Ask(None, Started)
        raise CannotReturn("items of size 8 no longer fit")

    if what == "steps":
        play.steps = smaller
    else:
        play.pools.refuses = 1
    play.die("add/0")
    play.tell(Started, "add/0")
    if what == "pools":
        play.tell(Loaded, "add/0", load_s=0.0, versions={})
    assert play.sent()[-1] == "bury"
    assert play.restarts.is_away("add/0")
    play.steps = play.usual_steps
    play.pass_time(10)
    play.load("add/0")
    play.met("add/0", ["read/0", "add/1", "write/0"])
    play.tell(JobOpened, "add/0")
    assert play.joined == ["add/0"]


def test_a_pause_between_two_questions_is_a_deadline_of_the_run(play):
    def waits_for_memory(plan):
        yield Ask(None, Started)
        yield Until(play.clock.now + 0.2)
        yield Ask(Load(**ME, device="cpu"), Loaded)
        return ()

    play.steps = waits_for_memory
    play.die("add/0")
    play.tell(Started, "add/0")
    assert play.restarts.deadline == play.clock.now + 0.2
    assert "Load" not in play.sent()
    play.pass_time(0.3)
    assert play.sent() == ["Load"]


def test_a_restart_may_be_told_to_wait(play):
    play.fleet.bury("add/0")
    play.restarts.begin(PLANS["add/0"], delay_s=4.0)
    play.sent()
    play.restarts.act()
    assert play.sent() == []
    assert play.restarts.deadline == play.clock.now + 4.0
    play.pass_time(5)
    assert play.sent() == ["begin"]


def test_what_others_say_is_not_for_restarts(play):
    assert not play.tell(JobOpened, "read/0")
    play.die("add/0")
    assert not play.tell(Loaded, "add/0", load_s=0.0, versions={}), "too early"
    assert play.sent("add/0") == ["bury", "begin"]


def test_who_is_on_its_way_has_no_endpoint_for_others_until_it_is_brought_in(play):
    play.die("add/0")
    assert play.restarts.peer(PLANS["add/0"]).endpoint == ""
    play.load("add/0")
    peer = play.restarts.peer(PLANS["add/0"])
    assert (peer.endpoint, peer.incarnation) == ("ipc://add/0", 1)
    assert play.restarts.peer(PLANS["read/0"]).endpoint == "ipc://read/0"
