"""The middle stage of a small job in this process, to be told what nobody should tell it."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

from ipc.errors import ProtocolError
from ipc.host import HostPool, MappedPool
from ipc.messages import ItemAdmitted, ItemReady, SlotFreed
from ipc.records import Peer, PoolAddress, StageUse, TensorHandle, TensorPlace
from ipc.setup_messages import OpenJob
from runtime.errors import one_line
from runtime.hosted import build, pack
from runtime.items import JobItems
from runtime.ledger import Ledger
from runtime.meter import Meter
from runtime.path import Identity
from runtime.trace import Recorder
from runtime.under_way import Notes
from stages.base import Job
from tests.fakes import Facts, Meta
from tests.hostile.configs import check_line

NUM_ITEMS, NUM_SLOTS, SLOT_BYTES, WIDTH = 8, 3, 256, 4


class LocalJob:
    """The middle stage of three in this process, on real pools; opened anew for each case."""

    def __init__(self, folder: Path) -> None:
        self._stack = stack = ExitStack()
        self._pools = [
            HostPool(name, owner=owner, num_slots=NUM_SLOTS, slot_bytes=SLOT_BYTES)
            for name, owner in (("in", "read/0"), ("out", "add/0"))
        ]
        self._mapped = [
            stack.enter_context(MappedPool(pool.address, writable=True)) for pool in self._pools
        ]
        job = Job(input="in", output="out", work_dir=str(folder))
        facts = Facts(job=job, num_items=NUM_ITEMS, width=WIDTH)
        self._hosted = {"add": build(_use())}
        notes = stack.enter_context(Notes("add/0"))
        addresses = [pool.address for pool in self._pools]
        self._message = _open_job(addresses, pack(facts), notes.address)
        self._sent: list[str] = []
        for pool in self._pools:
            stack.callback(pool.close)

    def close(self) -> None:
        """Give the pools back."""
        self._stack.close()

    def open(self) -> JobItems:
        """Open the job, as a worker does."""
        return JobItems(
            self._message,
            identity=Identity(sender="add/0", incarnation=0),
            hosted=self._hosted,
            ledger=Ledger(),
            meter=Meter(),
            trace=Recorder(),
            send=lambda worker, message: self._sent.append(worker),
        )

    def hear(self, messages: list[object]) -> list[str]:
        """Handle messages as a worker does, run what can run, and see what memory was touched.

        Return to whom anything was sent.
        """
        given, written = (pool.array() for pool in self._mapped)
        given[:], written[:] = 7, 7
        items = self.open()
        try:
            for message in messages:
                _handle(items, message)
                num_runs = 0
                while items.run_next():
                    num_runs += 1
                    assert num_runs < 100, "runs without an end"
        except ProtocolError as error:
            check_line(one_line(str(error)), ("",))
        finally:
            items.close()
        assert (given == 7).all(), "wrote into what it may only read"
        tails = written.reshape(NUM_SLOTS, SLOT_BYTES)[:, WIDTH * 4 :]
        assert (tails == 7).all(), "wrote beside the tensor"
        assert set(self._sent) <= {"read/0", "write/0", "supervisor"}
        sent, self._sent[:] = list(self._sent), []
        return sent


def _handle(items: JobItems, message: object) -> None:
    """Do as `Worker._handle` does; what is no business of a job's items ends a worker elsewhere."""
    match message:
        case ItemAdmitted():
            items.admit(message)
        case ItemReady():
            items.take(message)
        case SlotFreed() if items.owns(message.pool):
            items.freed(message)


def _use() -> StageUse:
    return StageUse(name="add", use="tests.fakes:Add", defaults=pack({}), options=pack({}))


def _open_job(addresses, facts: bytes, notes: PoolAddress) -> OpenJob:
    places = {
        "in": (_place("x", ("add",)),),
        "out": (_place("y", ("write",)),),
    }
    peers = tuple(
        Peer(worker=f"{stage}/0", incarnation=0, stages=(stage,), endpoint="ipc://none")
        for stage in ("read", "add", "write")
    )
    return OpenJob(
        sender="supervisor",
        incarnation=0,
        job=1,
        facts=facts,
        path=("read", "add", "write"),
        pools=tuple(addresses),
        owners={"in": "read/0", "out": "add/0", "far": "write/0"},
        places=places,
        peers=peers,
        round_robin=(),
        items_per_segment=1,
        num_items=NUM_ITEMS,
        window=NUM_ITEMS,
        durable=(),
        attempts=(),
        under_way=notes,
        trace=(),
    )


def _place(name: str, readers: tuple[str, ...]) -> TensorPlace:
    return TensorPlace(name=name, offset=0, shape=(WIDTH,), dtype="float32", readers=readers)


def ready_message(*, slot: int = 0, **fields: object) -> ItemReady:
    """Return the message that brings an item to the stage in the middle."""
    handle = TensorHandle(pool="in", slot=slot, offset=0, shape=(WIDTH,), dtype="float32")
    usual: dict[str, object] = {
        "sender": "read/0",
        "incarnation": 0,
        "stage": "add",
        "item": 0,
        "attempt": 0,
        "handles": {"x": handle},
        "meta": pack(Meta(label="item")),
        "failed": "",
    }
    return ItemReady(**usual | fields)
