"""Failed items travel on, marked: no slot is kept, none is freed twice, no replica is forgotten.

The real plan, routes, pools, leases and stages of all workers, in one process; messages are
delivered in random order between the workers, in order between any two, as sockets do.
"""

import random
from collections import deque
from contextlib import ExitStack

import pytest

from ipc.host import HostPool
from ipc.messages import ItemAdmitted, ItemFailed, ItemReady, ItemsDurable, SlotFreed
from ipc.records import Peer, StageUse
from ipc.setup_messages import OpenJob
from runtime.admission import Admission
from runtime.config import parse_config
from runtime.crew import ME
from runtime.host import Host
from runtime.hosted import build, pack
from runtime.items import JobItems
from runtime.ledger import Ledger
from runtime.meter import Meter
from runtime.outgoing import SUPERVISOR
from runtime.plan import make_plan, plan_workers
from runtime.pools import make_pools
from runtime.trace import Recorder
from runtime.under_way import Notes
from stages.base import Job
from tests.fakes import Facts

HOST = Host("here", "6.1", "3.11", 8, 2**30)
NUM_ITEMS = 100


def add(reads, writes, chance, unread, **more):
    options = {"reads": reads, "writes": writes, "chance": chance}
    options |= {"unread": f"{writes}2"} if unread else {}
    return {"use": "tests.runtime.faulty:FailsByChance", "with": options, **more}


def parse(*, replicas=1, groups=(), sinks=1, unread=False):
    stages = {
        "read": {"use": "tests.runtime.faulty:ReadsByChance"},
        "first": add("x", "y", 0.3, unread, replicas=replicas),
        "second": add("y", "z", 0.3, unread, replicas=replicas),
        "third": add("z", "w", 0.3, unread, replicas=replicas),
        "write": {
            "use": "tests.runtime.faulty:WritesWhatThereIs",
            "with": {"reads": "x w"},
            "replicas": sinks,
        },
    }
    return parse_config({"pipeline": "fake", "stages": stages, "groups": groups})


class Network:
    """All workers of a plan, and what is under way between them."""

    def __init__(self, config, folder, seed, stack, *, few_slots=0):
        self.random = random.Random(seed)
        self.under_way = {}  # (sender, receiver) -> messages
        job = Job(input="", output="", work_dir=str(folder))
        facts = pack(Facts(job=job, num_items=NUM_ITEMS, width=4))
        workers, _warnings = plan_workers(config, HOST)
        hosted = {w.name: {n: self.build(config, n) for n in w.stages} for w in workers}
        everything = [stage for stages in hosted.values() for stage in stages.values()]
        self.plan = make_plan(
            config,
            HOST,
            workers,
            [stage.describe() for stage in everything],
            list(dict.fromkeys(t for stage in everything for t in stage.specs(facts))),
            memory={},
            num_items=NUM_ITEMS,
        )
        if few_slots:
            pools, places = self.make_small_pools(few_slots, stack)
        else:
            made = make_pools(self.plan, {w.name: f"{w.name}.0@host#1" for w in workers})
            for pool in made.values():
                stack.callback(pool.close)
            pools = [pool.address for pool in made.values()]
            places = {made[pool.owner].address.name: pool.places for pool in self.plan.pools}
        self.ledgers = {worker.name: Ledger() for worker in workers}
        self.workers = {}
        for worker in workers:
            self.workers[worker.name] = JobItems(
                self.open_job(worker.name, facts, pools, places, stack),
                identity={"sender": worker.name, "incarnation": 0},
                hosted=hosted[worker.name],
                ledger=self.ledgers[worker.name],
                meter=Meter(),
                trace=Recorder(),
                send=lambda to, message, me=worker.name: self.send(me, to, message),
            )
            stack.callback(self.workers[worker.name].close)
            for stage in hosted[worker.name].values():
                stage.stage.begin(NUM_ITEMS)
        self.admission = Admission(num_items=NUM_ITEMS, window=self.plan.window)
        self.failed, self.durable = set(), []

    def build(self, config, name):
        stage = config.stages[name]
        use = StageUse(
            name=name, use=stage.use, defaults=pack({}), options=pack(dict(stage.options))
        )
        return build(use)

    def make_small_pools(self, few_slots, stack):
        """Make a pool for each tensor, with few slots where no sink reads it, as on GPUs."""
        pools, places = [], {}
        for pool in self.plan.pools:
            for place in pool.places:
                is_for_sink = "write" in place.readers
                made = HostPool(
                    f"{pool.owner}@{place.name}",
                    owner=pool.owner,
                    num_slots=pool.num_slots if is_for_sink else few_slots,
                    slot_bytes=pool.slot_bytes,
                )
                stack.callback(made.close)
                pools.append(made.address)
                places[made.address.name] = (place,)
        return pools, places

    def open_job(self, name, facts, pools, places, stack):
        plan = self.plan
        return OpenJob(
            **ME,
            job=1,
            facts=facts,
            path=plan.path,
            pools=tuple(pools),
            owners={address.name: address.owner for address in pools},
            places=places,
            peers=tuple(
                Peer(worker=w.name, incarnation=0, stages=w.stages, endpoint="ipc://x")
                for w in plan.workers
            ),
            round_robin=(),
            items_per_segment=plan.items_per_segment,
            num_items=NUM_ITEMS,
            window=plan.window,
            durable=(),
            attempts=(),
            under_way=stack.enter_context(Notes(name)).address,
            trace=(),
        )

    def send(self, sender, receiver, message):
        if receiver == SUPERVISOR:
            self.hear(message)
        else:
            self.under_way.setdefault((sender, receiver), deque()).append(message)

    def hear(self, message):
        if isinstance(message, ItemFailed):
            self.failed.add(message.item)
        elif isinstance(message, ItemsDurable):
            items = [one.item for one in message.items]
            self.durable += items
            self.admission.finish(items)
            self.admit()

    def admit(self):
        for item in [one.item for one in self.admission.admit()]:
            given_up = "killed twice" if item % 50 == 49 else ""
            message = ItemAdmitted(**ME, item=item, attempt=0, failed=given_up)
            self.send(SUPERVISOR, self.plan.workers_of("read")[0], message)

    def run(self):
        self.admit()
        moved = True
        while moved:
            for (_sender, receiver), messages in self.random.sample(
                list(self.under_way.items()), len(self.under_way)
            ):
                for _ in range(self.random.randint(0, len(messages))):
                    self.deliver(self.workers[receiver], messages.popleft())
            busy = [w for w in self.workers.values() if self.random.random() < 0.5 and w.run_next()]
            moved = bool(busy) or any(self.under_way.values()) or self.run_any()

    def run_any(self):
        return any(worker.run_next() for worker in self.workers.values())

    def deliver(self, worker, message):
        match message:
            case ItemAdmitted():
                worker.admit(message)
            case ItemReady():
                worker.take(message)
            case SlotFreed():
                worker.freed(message)


@pytest.mark.parametrize(
    "shape",
    [
        {},
        {"replicas": 3, "sinks": 2},
        {"groups": [["first", "third"]]},
        {"groups": [["first", "third"]], "replicas": 2, "sinks": 2},
        {"groups": [["first", "second", "third"]], "replicas": 2},
        {"groups": [["read", "first", "second", "third", "write"]]},
    ],
    ids=["apart", "replicas", "around", "replicas around", "one worker each", "one worker"],
)
@pytest.mark.parametrize("few_slots", [0, 1])
@pytest.mark.parametrize("unread", [False, True], ids=["", "some unread"])
def test_failed_items_hold_nothing_up_and_nothing_is_freed_twice(
    tmp_path, shape, unread, few_slots
):
    for seed in range(2):
        with ExitStack() as stack:
            config = parse(**shape, unread=unread)
            network = Network(config, tmp_path, seed, stack, few_slots=few_slots)
            network.run()
            assert sorted(network.durable) == list(range(NUM_ITEMS)), "a slot was kept"
            assert len(network.failed) > NUM_ITEMS / 2, "most were to fail"
            here = {name: ledger.num_here() for name, ledger in network.ledgers.items()}
            assert not any(here.values()), f"what is finished is nowhere: {here}"
