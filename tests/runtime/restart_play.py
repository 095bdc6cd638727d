"""Workers on their way back, with a fleet, pools and a clock that are played."""

from types import SimpleNamespace

from ipc.replay_messages import MeetPeer, PeerMet
from ipc.setup_messages import Load, Loaded, Started
from runtime.crew import ME
from runtime.errors import PlanError, WorkerDied
from runtime.job_pools import Opening
from runtime.restart import Ask
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
        self.restarts.forget(name, WorkerDied(name, -9))
        self.restarts.begin(PLANS[name])
        self.restarts.act()

    def pass_time(self, seconds):
        self.clock.now += seconds
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
