"""The real admission, routes, pools and turns, driven by random delays instead of processes."""

import heapq
import random
from itertools import pairwise

import pytest

from ipc.errors import WouldBlock
from ipc.messages import ItemReady
from ipc.pool import SlotPool
from ipc.records import TensorHandle
from runtime.admission import Admission
from runtime.routes import Route
from runtime.turns import SinkTurns

PER_SEGMENT, NUM_ITEMS = 4, 120
PATH = ("read", "encode", "denoise", "write")
WORKERS = {stage: [f"{stage}/0", f"{stage}/1"] for stage in PATH} | {"read": ["read/0"]}
NEEDED = PER_SEGMENT * 2 + 2 * 7  # the plan's W for these workers


class Simulation:
    """read -> two stages of two replicas that overtake each other -> two sinks, in order."""

    def __init__(self, seed, *, window, slots, slots_for_stages=None):
        self.random = random.Random(seed)
        self.events, self.clock, self.count = [], 0.0, 0
        self.admission = Admission(num_items=NUM_ITEMS, window=window)
        owners = [w for stage in PATH[:-1] for w in WORKERS[stage]]
        self.pools = {worker: SlotPool(worker, num_slots=slots) for worker in owners}
        for worker in (
            WORKERS["encode"] if slots_for_stages else ()
        ):  # no sink reads what they write
            self.pools[worker] = SlotPool(worker, num_slots=slots_for_stages)
        self.routes = {
            worker: Route(
                following,
                WORKERS[following],
                rule="segment" if following == "write" else "least_loaded",
                items_per_segment=PER_SEGMENT,
                owner=lambda pool: pool,
            )
            for stage, following in pairwise(PATH)
            for worker in WORKERS[stage]
        }
        self.turns = {
            worker: SinkTurns(
                num_items=NUM_ITEMS, items_per_segment=PER_SEGMENT, replica=i, num_replicas=2
            )
            for i, worker in enumerate(WORKERS["write"])
        }
        self.queues = {worker: {} for workers in WORKERS.values() for worker in workers}
        self.busy = set()
        self.written = {worker: [] for worker in WORKERS["write"]}
        self.finished = 0

    def run(self):
        """Return how many items were finished when nothing could move any more."""
        self.admit()
        while self.events:
            self.clock, _count, action, arguments = heapq.heappop(self.events)
            action(*arguments)
            for worker in self.queues:
                self.try_start(worker)
        return self.finished

    def later(self, action, *arguments):
        self.count += 1  # breaks ties
        when = self.clock + self.random.paretovariate(1.1)  # heavy tail: some things take very long
        heapq.heappush(self.events, (when, self.count, action, arguments))

    def admit(self):
        for item in [one.item for one in self.admission.admit()]:
            self.queues["read/0"][item] = None
        self.later(lambda: None)

    def try_start(self, worker):
        queue = self.queues[worker]
        if worker in self.busy or not queue:
            return
        item = min(queue)
        if worker in self.turns:
            item = self.turns[worker].next_item()
            if item not in queue:
                return
            self.turns[worker].took()
        else:
            try:
                self.pools[worker].lease(item, 0, [self.routes[worker].stage])
            except WouldBlock:
                return  # until a SlotFreed
        self.busy.add(worker)
        self.later(self.done, worker, item, queue.pop(item))

    def done(self, worker, item, ready):
        self.busy.remove(worker)
        if ready is not None:
            owner = ready.handles["t"].pool
            self.later(self.free, owner, ready, worker.partition("/")[0])
        if worker in self.turns:
            self.written[worker].append(item)
            if len(self.written[worker]) == PER_SEGMENT:
                self.later(self.finish, self.written[worker])
                self.written[worker] = []
            return
        slot = self.pools[worker].slot_of(item, 0)
        handle = TensorHandle(pool=worker, slot=slot, offset=0, shape=(1,), dtype="uint8")
        onward = ItemReady(
            sender=worker,
            incarnation=0,
            stage=self.routes[worker].stage,
            item=item,
            attempt=0,
            handles={"t": handle},
            meta=b"",
            failed="",
        )
        self.send(self.routes[worker].offer(onward))

    def send(self, sends):
        for worker, ready in sends:
            self.later(self.queues[worker].__setitem__, ready.item, ready)

    def free(self, owner, ready, reader):
        self.pools[owner].free(ready.handles["t"].slot, ready.item, 0, reader)
        self.send(self.routes[owner].freed(ready.item, 0))

    def finish(self, items):
        self.finished += len(items)
        self.admission.finish(items)
        self.admit()


SEEDS = range(100)


def test_with_the_admission_window_no_run_ever_stops():
    finished = {Simulation(seed, window=NEEDED, slots=NEEDED).run() for seed in SEEDS}
    assert finished == {NUM_ITEMS}


@pytest.mark.parametrize("slots", [1, 2, 7])
def test_pools_that_no_sink_reads_may_have_few_slots(slots):
    """What lies on a GPU is dear; stages take items as they come, so their slots come back."""
    runs = (Simulation(s, window=NEEDED, slots=NEEDED, slots_for_stages=slots) for s in SEEDS)
    assert {run.run() for run in runs} == {NUM_ITEMS}


def test_with_slots_as_the_only_limit_some_runs_stop_for_ever():
    """What the window is for: later items fill the pools, and the one that is due has no slot."""
    finished = [Simulation(seed, window=NUM_ITEMS, slots=3).run() for seed in SEEDS]
    stopped = sum(count < NUM_ITEMS for count in finished)
    assert len(SEEDS) / 10 < stopped < len(SEEDS), "a matter of chance, as users would meet it"


AROUND = {"first": "outer", "second": "inner", "third": "outer", "write": "sink"}
STAGES = list(AROUND)
ONLY_ITS_OWN = {stage: (stage,) for stage in STAGES}  # each stage has a pool
ALL_OF_ITS_WORKER = ONLY_ITS_OWN | dict.fromkeys(("first", "third"), ("first", "third"))


class Around:
    """A worker with two stages, "first" and "third", around another one's "second"; then a sink.

    Args:
        seed: of all chances.
        slots: of what "first" and of what "second" write, as on GPUs; a sink reads the third's.
        asks: the pools in which a stage must find a slot before it begins.
        failing: the share of items that fail in "second", and pass through "third".
    """

    def __init__(self, seed, *, slots, asks, failing):
        self.random, self.asks = random.Random(seed), asks
        self.events, self.clock, self.count = [], 0.0, 0
        self.admission = Admission(num_items=NUM_ITEMS, window=NEEDED)
        self.pools = {
            stage: SlotPool(stage, num_slots=number)
            for stage, number in zip(STAGES, (*slots, NEEDED), strict=False)
        }
        self.turns = SinkTurns(
            num_items=NUM_ITEMS, items_per_segment=PER_SEGMENT, replica=0, num_replicas=1
        )
        self.failed = {item for item in range(NUM_ITEMS) if self.random.random() < failing}
        self.queue, self.busy, self.written, self.finished = set(), set(), [], 0

    def run(self):
        """Return how many items were finished when nothing could move any more."""
        self.admit()
        while self.events:
            self.clock, _count, action, arguments = heapq.heappop(self.events)
            action(*arguments)
            while any(self.try_start(worker) for worker in ("outer", "inner", "sink")):
                pass
        return self.finished

    def later(self, action, *arguments):
        self.count += 1
        when = self.clock + self.random.paretovariate(1.1)
        heapq.heappush(self.events, (when, self.count, action, arguments))

    def admit(self):
        for item in [one.item for one in self.admission.admit()]:
            self.later(self.queue.add, ("first", item))

    def try_start(self, worker):
        """Start what is furthest along the path, then the oldest; return whether there was any."""
        if worker in self.busy:
            return False
        ready = [one for one in self.queue if AROUND[one[0]] == worker and self.may(*one)]
        if not ready:
            return False
        stage, item = min(ready, key=lambda one: (-STAGES.index(one[0]), one[1]))
        self.queue.remove((stage, item))
        if stage in self.pools and not self.is_given_up(stage, item):
            self.pools[stage].lease(item, 0, [self.following(stage)])
        if stage == "write":
            self.turns.took()
        self.busy.add(worker)
        self.later(self.done, worker, stage, item)
        return True

    def may(self, stage, item):
        if stage == "write":
            return item == self.turns.next_item()
        return all(self.pools[pool].can_lease(item, 0) for pool in self.asks[stage])

    def is_given_up(self, stage, item):
        return item in self.failed and stage != "first"

    def following(self, stage):
        return STAGES[STAGES.index(stage) + 1]

    def done(self, worker, stage, item):
        self.busy.remove(worker)
        for pool in self.pools.values():
            if self.following(pool.name) == stage and pool.slot_of(item, 0) is not None:
                self.later(pool.free, pool.slot_of(item, 0), item, 0, stage)
        if stage != "write":
            self.later(self.queue.add, (self.following(stage), item))
            return
        self.written.append(item)
        if len(self.written) == PER_SEGMENT:
            self.finished += PER_SEGMENT
            self.admission.finish(self.written)
            self.written = []
            self.admit()


@pytest.mark.parametrize("slots", [(1, 1), (7, 7)])
def test_a_stage_that_asks_for_slots_of_what_it_writes_never_stops_a_run(slots):
    runs = (Around(s, slots=slots, asks=ONLY_ITS_OWN, failing=0.1) for s in SEEDS[:25])
    assert {run.run() for run in runs} == {NUM_ITEMS}


def test_a_stage_that_asks_for_more_stops_runs_for_ever():
    """The first stage's slot waits for the second's, that for the third, and that for the first."""
    runs = (Around(s, slots=(1, 1), asks=ALL_OF_ITS_WORKER, failing=0.1) for s in SEEDS)
    assert max(run.run() for run in runs) < NUM_ITEMS
