"""One worker's part of a job on a fake GPU, in this process: everything real but the driver."""

from contextlib import ExitStack, contextmanager

import numpy as np

from ipc.host import HostPool, MappedPool, align
from ipc.messages import ItemReady
from ipc.records import Peer, TensorHandle, TensorPlace
from ipc.setup_messages import MakePool, OpenJob
from runtime.gpu_queue import GpuQueue
from runtime.hosted import Hosted, pack
from runtime.items import JobItems
from runtime.ledger import Ledger
from runtime.memory import JobMemory
from runtime.meter import Meter
from runtime.path import Identity
from runtime.trace import Recorder
from runtime.under_way import Notes
from runtime.worker_gpu import WorkerGpu
from stages.base import Stage, TensorSpec
from tests import fake_torch
from tests.fakes import Facts, Meta
from tests.waiting import wait_until

WIDTH, NUM_SLOTS, NUM_ITEMS = 64, 8, 100
NBYTES = align(4 * WIDTH)


class Triple(Stage):
    """Writes 3 * what it reads + 1, and keeps a list of what it has begun."""

    facts_type, meta_type = Facts, Meta

    def __init__(self, reads, writes, *, begun, library="torch", raises_at=-1):
        self.reads, self.writes, self.library = (reads,), (writes,), library
        self._begun, self._raises_at = begun, raises_at

    def specs(self, facts):
        return {self.writes[0]: TensorSpec((WIDTH,), "float32")}

    def load(self, device):
        pass

    def prepare(self, facts, size):
        return size

    def run(self, inputs, outputs, item):
        self._begun.append((self.writes[0], item.index))
        item.progress(0.5)
        if item.index == self._raises_at:
            raise ValueError("frame pair has 3 frames")
        given, out = inputs[self.reads[0]], outputs[self.writes[0]]

        def work():
            np.multiply(given, 3, out=out)
            out[:] += 1

        if self.library == "torch":
            fake_torch.queue("cuda:0", [given], [out], work)
        else:
            work()
        return item.meta


class GpuWorker:
    """Stages "a", "b", ... in a row, each named as what it writes; the first ones are in here.

    Args:
        stages: here, in order; they read `x` of "read", and each what the one before it wrote.
        after: stages in another worker, between these and the sink.
        on_gpu: the tensors that lie on the GPU.
        unread: those that nobody reads.
    """

    def __init__(self, driver, stages, *, after=(), on_gpu=(), unread=()):
        self.driver, self.sent, self.num_woken = driver, [], 0
        identity = Identity(sender="w/0", incarnation=0)
        self.hosted = {stage.writes[0]: Hosted(stage.writes[0], stage, ()) for stage in stages}
        names = ["x", *self.hosted]
        readers = dict(zip(names, zip([*self.hosted, *after, "write"]), strict=False))
        readers |= dict.fromkeys(unread, ())
        self.ledger, self.meter, self.trace = Ledger(), Meter(), Recorder()
        with ExitStack() as stack:
            self.gpu = WorkerGpu(identity, self._wake)
            stack.callback(self.gpu.close)
            self.gpu.use()
            self.pools, self.places = {}, {}
            for pool, owner, tensors in (
                ("in", "read/0", ["x"]),
                ("out", "w/0", [name for name in self.hosted if name not in on_gpu]),
                ("gpu", "w/0", list(on_gpu)),
            ):
                if tensors:
                    self.pools[pool] = self._make(stack, pool, owner, len(tensors) * NBYTES)
                    self.places[pool] = tuple(
                        TensorPlace(
                            name=name,
                            offset=index * NBYTES,
                            shape=(WIDTH,),
                            dtype="float32",
                            readers=readers[name],
                        )
                        for index, name in enumerate(tensors)
                    )
            self.mapped = {
                pool: stack.enter_context(MappedPool(address, writable=True))
                for pool, address in self.pools.items()
                if not address.gpu
            }
            self._notes = stack.enter_context(Notes("w/0"))
            self._stack = stack.pop_all()
        self.queue = GpuQueue(self.gpu)
        self._identity, self._after = identity, after
        self.items = None

    def _wake(self):
        self.num_woken += 1

    def _make(self, stack, name, owner, slot_bytes):
        if name == "gpu":
            made = self.gpu.make_pool(
                MakePool(
                    sender="", incarnation=0, pool=name, num_slots=NUM_SLOTS, slot_bytes=slot_bytes
                )
            )
            return made.address[0]
        pool = HostPool(name, owner=owner, num_slots=NUM_SLOTS, slot_bytes=slot_bytes)
        stack.callback(pool.close)
        return pool.address

    def open(self):
        """Open the job, as a worker does."""
        self.items = JobItems(
            self._job(),
            identity=self._identity,
            hosted=self.hosted,
            ledger=self.ledger,
            meter=self.meter,
            trace=self.trace,
            send=lambda worker, message: self.sent.append((worker, message)),
            gpu=self.queue,
        )

    def open_memory(self):
        """Open the pools alone, for a queue without items; return them."""
        job = self._job()
        libraries = {"torch"}
        return JobMemory("w/0", job.pools, job.owners, job.places, libraries, self.queue.pools)

    def _job(self):
        owned = {"read/0": ("read",), "w/0": tuple(self.hosted), "other/0": tuple(self._after)}
        peers = [
            Peer(worker=worker, incarnation=0, stages=stages, endpoint="ipc://x")
            for worker, stages in (owned | {"write/0": ("write",)}).items()
        ]
        return OpenJob(
            sender="supervisor",
            incarnation=0,
            job=1,
            facts=b"",
            path=("read", *self.hosted, *self._after, "write"),
            pools=tuple(self.pools.values()),
            owners={address.name: address.owner for address in self.pools.values()},
            places=self.places,
            peers=tuple(peers),
            round_robin=(),
            items_per_segment=2,
            num_items=NUM_ITEMS,
            window=NUM_SLOTS,
            durable=(),
            attempts=(),
            under_way=self._notes.address,
            trace=(),
        )

    def write(self, item):
        """Write an item's `x` as the source does; return its handle."""
        at = item % NUM_SLOTS
        self._view("in", at, 0)[:] = item
        return TensorHandle(pool="in", slot=at, offset=0, shape=(WIDTH,), dtype="float32")

    def _view(self, pool, slot, offset):
        start = slot * self.pools[pool].slot_bytes + offset
        return self.mapped[pool].array()[start : start + 4 * WIDTH].view(np.float32)

    def feed(self, count, *, first=0):
        """Send items, as "read" does."""
        for item in range(first, first + count):
            self.items.take(
                ItemReady(
                    sender="read/0",
                    incarnation=0,
                    stage=next(iter(self.hosted)),
                    item=item,
                    attempt=0,
                    handles={"x": self.write(item)},
                    meta=pack(Meta(label="")),
                    failed="",
                )
            )

    def run_all(self):
        """Begin all that can be begun."""
        while self.items.run_next():
            pass

    def pass_until(self, num_items):
        """Go on as a worker does until so many items have left; return those messages."""

        def have_left():
            self.items.end_done()
            self.run_all()
            return len(self.left()) >= num_items

        wait_until(have_left)
        return self.left()

    def left(self):
        return [message for _worker, message in self.sent if isinstance(message, ItemReady)]

    def value(self, handle):
        """Return the number that a tensor in host memory is full of."""
        (value,) = set(self._view(handle.pool, handle.slot, handle.offset).tolist())
        return value

    @contextmanager
    def held(self, stream):
        """Let a stream stand still, and give it back when all others have done what they can."""
        gate = self.driver.streams[stream.handle].gate
        gate.clear()
        try:
            yield
            self.wait_until_still()
        finally:
            gate.set()

    def wait_until_still(self):
        streams = list(self.driver.streams.values())
        wait_until(lambda: all(stream.stands() for stream in streams))

    def close(self):
        if self.items is not None:
            self.items.close()
            self.items = None
        fake_torch.compute_on(0)
        self._stack.close()
