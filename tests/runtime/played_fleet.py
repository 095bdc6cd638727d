"""A fleet without processes: the real items of workers, which die at random.

Messages of two workers arrive in any order, those of a dead one up to some point of each of its
sockets. Whoever is killed comes back, and may be killed on its way.
"""

import random
from collections import deque
from types import SimpleNamespace

from ipc.messages import ItemAdmitted, ItemReady, SlotFreed
from ipc.records import JobUsage, StageUse
from ipc.replay_messages import DropItems, FreeItems, Held, MeetPeer, UnmapPools
from ipc.setup_messages import (
    CloseJob,
    Configure,
    Configured,
    Finish,
    Finished,
    JobClosed,
    JobOpened,
    Load,
    Loaded,
    OpenJob,
    OpenSource,
    Prepare,
    Prepared,
    SetupFailed,
    SourceOpened,
    Started,
)
from runtime.errors import WorkerDied
from runtime.host import Host
from runtime.hosted import build, pack
from runtime.items import JobItems
from runtime.ledger import Ledger
from runtime.meter import Meter
from runtime.plan import make_plan, plan_workers
from runtime.replay_side import answer_without_job
from runtime.trace import Recorder
from stages.base import Job
from tests.fakes import Facts

NUM_ITEMS = 80
HOST = Host(hostname="h", kernel="6", python="3.12", cores=2, memory_bytes=2**40)
SUPERVISOR = "supervisor"


class Actor:
    """One incarnation of a worker: what `runtime.worker` does with its messages."""

    def __init__(self, fleet, plan, incarnation):
        self.fleet, self.plan = fleet, plan
        self.identity = {"sender": plan.name, "incarnation": incarnation}
        self.hosted = {name: fleet.build(name) for name in plan.stages}
        self.ledger, self.meter, self.job, self.early = Ledger(), Meter(), None, []
        self.peers = {}  # worker -> the incarnation that we are connected to
        if "read" in self.hosted:
            self.hosted["read"].stage.open(fleet.job)

    def tell(self, kind, **fields):
        self.send(SUPERVISOR, kind(**self.identity, **fields))

    def send(self, to, message):
        """Post to the incarnation that we know; to one that is not there nothing goes."""
        receiver = (to, 0) if to == SUPERVISOR else (to, self.peers.get(to, -1))
        self.fleet.post(self.address, receiver, message)

    @property
    def address(self):
        return (self.plan.name, self.identity["incarnation"])

    def connect(self, peer):
        if peer.endpoint:
            self.peers[peer.worker] = peer.incarnation

    def handle(self, message):
        match message:
            case ItemReady() if self.job is None:
                self.early.append(message)
            case ItemReady():
                self.job.take(message)
            case ItemAdmitted():
                self.job.admit(message)
            case SlotFreed():
                if self.job is not None and self.job.owns(message.pool):
                    self.job.freed(message)
            case DropItems() | FreeItems() | MeetPeer() | UnmapPools():
                self.replay(message)
            case _:
                self.set_up(message)

    def replay(self, message):
        if isinstance(message, MeetPeer):
            self.connect(message.peer)
        if self.job is not None:
            self.job.replay.handle(message)
        else:
            answer_without_job(message, self.identity, lambda sent: self.send(SUPERVISOR, sent))

    def set_up(self, message):
        match message:
            case Configure():
                self.tell(Configured, stages=())
            case OpenSource():
                self.tell(
                    SourceOpened,
                    facts=self.fleet.facts,
                    num_items=NUM_ITEMS,
                    item_size=1,
                    unit="numbers",
                    num_units=NUM_ITEMS,
                    warnings=(),
                    broken="",
                )
            case Load():
                self.tell(Loaded, load_s=0.0, versions={})
            case Prepare():
                self.tell(Prepared, size=message.size, prepare_s=0.0)
            case OpenJob():
                self.open(message)
            case Finish() if self.fleet.join_fails:
                how = {"error": "OSError: no room", "traceback": "", "users_mistake": False}
                self.tell(SetupFailed, what="Finish", stage="write", **how)
            case Finish():
                self.hosted["write"].stage.finish(range(message.num_items))
                self.tell(Finished, warnings=())
            case CloseJob():
                self.job.close()
                self.job = None
                self.tell(JobClosed, usage=JobUsage())

    def open(self, message):
        for peer in message.peers:
            self.connect(peer)
        if "write" in self.hosted:
            self.hosted["write"].stage.open(self.hosted["write"].facts(message.facts))
        self.job = JobItems(
            message,
            identity=self.identity,
            hosted=self.hosted,
            ledger=self.ledger,
            meter=self.meter,
            trace=Recorder(),
            send=self.send,
        )
        for ready in self.early:
            self.job.take(ready)
        self.tell(JobOpened)

    def pulse(self, message):
        for one in message.dead:
            self.ledger.lose(one.worker, one.incarnation)
        self.tell_held(message.asked)

    def tell_held(self, asked):
        held = Held(**self.identity, asked=asked, items=self.ledger.places())
        self.fleet.post((*self.address, "pulse"), (SUPERVISOR, 0), held)


class PlayedFleet:
    """What `JobRun` needs of a fleet; every step is a matter of chance."""

    shares_gpu_memory = False

    def __init__(self, config, folder, seed, *, kills):
        self.join_fails = False
        self.lateness = 0.0  # how likely a deadline passes before the next message
        self.random, self.kills, self.config = random.Random(seed), kills, config
        source = folder / "in"
        source.write_text(str(NUM_ITEMS))
        self.job = Job(input=str(source), output=str(folder / "out"), work_dir=str(folder))
        self.facts = pack(Facts(job=self.job, num_items=NUM_ITEMS, width=4))
        self.channels = {}  # (sender, receiver) -> messages
        self.actors, self.workers, self.beats, self.dying = {}, {}, {}, []
        self.num_started, self.num_killed = {}, 0
        plans, _warnings = plan_workers(config, HOST)
        for plan in plans:
            self.begin(plan)
        self.channels.clear()  # they have said that they started
        hosted = [one for actor in self.actors.values() for one in actor.hosted.values()]
        self.plan = make_plan(
            config,
            HOST,
            plans,
            [one.describe() for one in hosted],
            list(dict.fromkeys(t for one in hosted for t in one.specs(self.facts))),
            memory={},
            num_items=NUM_ITEMS,
        )

    def build(self, name):
        stage = self.config.stages[name]
        options = pack(dict(stage.options))
        return build(StageUse(name=name, use=stage.use, defaults=pack({}), options=options))

    # --- what `runtime.fleet` does ---

    def begin(self, plan):
        incarnation = self.num_started.get(plan.name, 0)
        self.num_started[plan.name] = incarnation + 1
        self.workers[plan.name] = SimpleNamespace(
            plan=plan,
            incarnation=incarnation,
            endpoint="ipc://x",
            process=SimpleNamespace(pid=self.num_killed),
        )
        self.actors[plan.name] = Actor(self, plan, incarnation)
        self.actors[plan.name].tell(Started)

    def connect(self, name):
        assert name in self.workers

    def bury(self, name):
        del self.workers[name]
        self.dying = [one for one in self.dying if one != name]
        if name in self.actors:
            self.die(name)

    def send(self, worker, message, *socket):
        address = (worker, self.workers[worker].incarnation, *socket)
        self.post((SUPERVISOR, 0), address, message)

    def send_pulse(self, worker, message):
        self.send(worker, message, "pulse")

    def ask(self, kind, questions):
        for worker, question in questions.items():
            self.send(worker, question)
        return self.gather(kind, list(questions))

    def gather(self, kind, workers):
        answers = {}
        while len(answers) < len(workers):
            if isinstance(message := self.receive(), kind):
                answers[message.sender] = message
        return answers

    def receive(self, *, deadline=None, wakes=True):
        while True:
            if deadline is not None and self.random.random() < self.lateness:
                return None
            if self.dying and self.random.random() < 0.2:
                raise WorkerDied(self.dying.pop(0), -9)
            if self.kills and self.actors and self.random.random() < 0.01:
                self.kills -= 1
                self.kill(self.random.choice(list(self.actors)))
            name = self.random.choice(list(self.actors)) if self.actors else None
            if self.random.random() < 0.5 and name and self.run(name):
                continue
            ready = [key for key, messages in self.channels.items() if messages]
            if ready:
                if (message := self.deliver(*self.random.choice(ready))) is not None:
                    return message
            elif self.dying:
                raise WorkerDied(self.dying.pop(0), -9)
            elif sum(self.run(name) for name in self.actors) == 0:
                assert (deadline or float("inf")) < float("inf"), "nothing moves"
                return None

    # --- what happens between processes ---

    def post(self, sender, receiver, message):
        self.channels.setdefault((sender, receiver), deque()).append(message)

    def run(self, name):
        job = self.actors[name].job
        return job is not None and job.run_next()

    def deliver(self, sender, receiver):
        """Deliver one message; return it if it is for the supervisor and of a living worker."""
        message = self.channels[sender, receiver].popleft()
        if receiver[0] == SUPERVISOR:
            worker = self.workers.get(message.sender)
            is_known = worker is not None and worker.incarnation == message.incarnation
            return message if is_known else None
        actor = self.actors.get(receiver[0])
        if actor is not None and actor.address == receiver[:2]:
            actor.pulse(message) if receiver[2:] else actor.handle(message)
        return None

    def kill(self, name):
        self.num_killed += 1
        self.die(name)
        self.dying.append(name)

    def die(self, name):
        """What came to it is lost; of what it sent to each the last part may be."""
        if (actor := self.actors.pop(name)).job is not None:
            actor.job.close()
        for (sender, _receiver), messages in self.channels.items():
            if sender[:2] == actor.address:
                for _ in range(self.random.randint(0, len(messages))):
                    messages.pop()
