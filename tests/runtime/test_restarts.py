"""Workers on their way back, with a fleet that is played: orders that processes show rarely."""

from types import SimpleNamespace

import pytest

from ipc.replay_messages import MeetPeer, PeerMet
from ipc.setup_messages import JobOpened, Load, Loaded, Started
from runtime.crew import ME
from runtime.errors import PlanError, WorkerDied
from runtime.job_pools import Opening
from runtime.restart import Ask, CannotReturn, Until
from runtime.restarts import Restarts
from runtime.worker_plan import WorkerPlan

NAMES = ("read/0", "add/0", "add/1", "write/0")
PLANS = {name: WorkerPlan(name, (name.partition("/")[0],), None, 1) for name in NAMES}
NOTHING = Opening(pools=(), owners={}, places={})


class PlayedFleet:
    """Notes what is done, in order."""

    def __init__(self):
        self.workers = {}
        self.done = []
        self.num_started = dict.fromkeys(NAMES, 0)
        for plan in PLANS.values():
            self.begin(plan)
        self.done.clear()
        self.meetings = []  # who, and by whom: what is not answered yet

    def begin(self, plan):
        name = plan.name
        incarnation = self.num_started[name]
        self.num_started[name] += 1
        self.workers[name] = SimpleNamespace(incarnation=incarnation, endpoint=f"ipc://{name}")
        self.done.append(("begin", name))

    def connect(self, name):
        self.done.append(("connect", name))

    def bury(self, name):
        del self.workers[name]
        self.done.append(("bury", name))

    def send(self, worker, message):
        self.done.append((type(message).__name__, worker))
        if isinstance(message, MeetPeer):
            self.meetings.append((message.peer.worker, worker))


class PlayedPools:
    def __init__(self):
        self.renewed = []
        self.refuses = 0

    def renew(self, worker, on_gpu):
        if self.refuses:
            self.refuses -= 1
            raise PlanError("no memory")
        self.renewed.append(worker)

    def opening_of(self, owner, reader):
        return NOTHING


class Clock:
    now = 1000.0

    def monotonic(self):
        return self.now


class Play:
    """What one job has: its restarts, and what the rest of the run would tell them."""

    def __init__(self, clock):
        self.clock, self.fleet, self.pools = clock, PlayedFleet(), PlayedPools()
        self.in_job, self.joined, self.closed = set(NAMES), [], []
        self.knows = {}  # worker -> of whom it has been told where they are
        self.steps = self.usual_steps
        self.restarts = Restarts(
            self.fleet,
            self.pools,
            in_job=self.in_job,
            steps=lambda plan: self.steps(plan),
            job_question=self.job_question,
            has_joined=lambda plan: self.joined.append(plan.name),
        )

    def job_question(self, plan):
        peers = map(self.restarts.peer, PLANS.values())
        self.knows[plan.name] = {peer.worker for peer in peers if peer.endpoint}
        return SimpleNamespace()

    def usual_steps(self, plan):
        try:
            yield Ask(None, Started)
            yield Ask(Load(**ME, device="cpu"), Loaded)
        except GeneratorExit:
            self.closed.append(plan.name)
            raise
        return ()

    def die(self, name):
        """It dies, and is buried, as all know it."""
        self.fleet.bury(name)
        self.in_job.discard(name)
        self.restarts.forget(name)
        self.restarts.begin(PLANS[name])
        self.restarts.act()

    def tell(self, kind, sender, **fields):
        message = kind(sender=sender, incarnation=0, **fields)
        heard = self.restarts.hear(message)
        self.restarts.act()
        return heard

    def load(self, name):
        assert self.tell(Started, name)
        assert self.tell(Loaded, name, load_s=0.0, versions={})

    def met(self, name, by):
        """`by` have opened the pools of `name`."""
        for sender in by:
            self.tell_met(name, sender, self.fleet.workers[name].incarnation)

    def tell_met(self, name, sender, incarnation):
        self.tell(PeerMet, sender, peer=name, peer_incarnation=incarnation, error="")

    def take_meetings(self):
        meetings, self.fleet.meetings = self.fleet.meetings, []
        return meetings

    def sent(self, name=None):
        """Return what was done since this was asked last, to one worker or to all."""
        found = [what for what, worker in self.fleet.done if name in (None, worker)]
        self.fleet.done = [one for one in self.fleet.done if name and one[1] != name]
        return found


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
    assert play.restarts.is_busy
    assert play.tell(JobOpened, "add/0")
    assert not play.restarts.is_busy
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
    for delay_s in (1.0, 2.0):
        play.restarts.failed("add/0", died("add/0"))
        play.sent()
        assert play.restarts.deadline == play.clock.now + delay_s
        play.clock.now += delay_s - 0.1
        play.restarts.act()
        assert play.sent() == []
        play.clock.now += 0.2
        play.restarts.act()
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
            play.clock.now += 10
            play.restarts.act()
        play.load("add/0")
        play.met("add/0", ["read/0", "add/1", "write/0"])
        play.tell(JobOpened, "add/0")
    assert play.joined == ["add/0"] * 4


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
    play.clock.now += 10
    play.restarts.act()
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
    play.clock.now += 0.3
    play.restarts.act()
    assert play.sent() == ["Load"]


def test_a_restart_may_be_told_to_wait(play):
    play.fleet.bury("add/0")
    play.restarts.begin(PLANS["add/0"], delay_s=4.0)
    play.sent()
    play.restarts.act()
    assert play.sent() == []
    assert play.restarts.deadline == play.clock.now + 4.0
    play.clock.now += 5
    play.restarts.act()
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
