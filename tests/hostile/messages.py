"""Hostile messages: bytes that are none, and some that say what nobody should."""

from __future__ import annotations

import copy
from pathlib import Path
from random import Random

import msgspec

from ipc.errors import ProtocolError
from ipc.messages import ItemReady, SlotFreed, decode, encode
from ipc.records import TensorHandle
from runtime.hosted import pack
from tests.hostile.configs import check_line
from tests.hostile.corpus_files import corpus
from tests.hostile.local_job import NUM_ITEMS, NUM_SLOTS, WIDTH, LocalJob, ready_message
from tests.hostile.mutate import damaged, extreme
from tests.ipc.test_messages import KINDS, sample

SHAPES = [(WIDTH,), (WIDTH + 1,), (2**30,), (-1,), (), (0,), (2, 2), (1,) * 40, (2**40, 2**40)]
NAMES = ["read", "add", "write", "read/0", "add/0", "write/0", "supervisor", "", "x", "y", "no/1"]
POOLS = ["in", "out", "far", "", "in\n", "out@cuda", "/etc/passwd"]
ABSURD = [
    *NAMES,
    *POOLS,
    "uint8",
    "float64",
    "object",
    "O",
    "f" * 5000,
    "\0",
    "\U0001f600",
    b"\xc1",
]
ABSURD += [
    None,
    True,
    0.5,
    float("nan"),
    float("inf"),
    -1,
    2**31,
    2**63,
    [],
    [[]] * 50,
    {},
    {"": {}},
]

Case = bytes | list[object]


class Surface:
    """Decodes what comes, and hands what can be decoded to a worker's items."""

    max_bytes = 2**28

    def __init__(self, folder: Path) -> None:
        self._parts = [encode(sample(kind)) for kind in KINDS]
        self._parts += [encode(good_message(Random(seed))) for seed in range(20)]
        self._all = [*self._parts, *corpus("messages").values()]
        self._job = LocalJob(folder)

    def close(self) -> None:
        """Give back what is held."""
        self._job.close()

    def hear(self, messages: list[object]) -> list[str]:
        """See `LocalJob.hear`."""
        return self._job.hear(messages)

    def take(self, *messages: ItemReady) -> None:
        """Have an open job take these."""
        items = self._job.open()
        try:
            for message in messages:
                items.take(message)
        finally:
            items.close()

    def make(self, rng: Random) -> Case:
        kind = rng.randrange(8)
        if kind == 0:
            return rng.randbytes(rng.randrange(64))
        if kind < 3:
            return damaged(rng, rng.choice(self._all), self._all)
        if kind < 5:
            return msgspec.msgpack.encode(_spoilt(rng, rng.choice(self._parts)))
        return [_item_message(rng) for _ in range(rng.randint(1, 8))]

    def judge(self, case: Case) -> None:
        if isinstance(case, list):
            self._job.hear(case)
        else:
            judge_part(case)
            if (message := _decoded(case)) is not None:
                self._job.hear([message])


def judge_part(part: bytes) -> None:
    """Check that bytes are a message that keeps its meaning, or refused in one line."""
    try:
        message = decode(part)
    except ProtocolError as error:
        check_line(str(error), ("bad message of",))
        return
    assert type(message) in KINDS
    assert repr(decode(encode(message))) == repr(message)  # by text, as NaN is not itself


def _decoded(part: bytes) -> object | None:
    try:
        return decode(part)
    except ProtocolError:
        return None


def good_message(rng: Random) -> object:
    """Return a message that a worker expects."""
    item, slot = rng.randrange(NUM_ITEMS), rng.randrange(NUM_SLOTS)
    if rng.random() < 0.3:
        return SlotFreed(
            sender="write/0",
            incarnation=0,
            pool="out",
            slot=slot,
            item=item,
            attempt=0,
            reader="write",
        )
    return ready_message(item=item, slot=slot, failed=rng.choice(("", "", "", "it broke")))


def _item_message(rng: Random) -> object:
    """Return a message about an item, as its class has it, but with absurd values."""
    message = good_message(rng)
    if rng.random() < 0.4:
        return message
    changes: dict[str, object] = {}
    if isinstance(message, SlotFreed):
        field = rng.choice(("pool", "slot", "item", "attempt", "reader", "sender"))
        changes[field] = rng.choice(
            NAMES if field in ("pool", "reader", "sender") else (1, 2**30, 9)
        )
        return msgspec.structs.replace(message, **changes)
    if rng.random() < 0.3:
        changes["item"] = rng.choice((0, 7, 8, 9, 2**31 - 1))
    if rng.random() < 0.2:
        changes["stage"] = rng.choice(NAMES)
    if rng.random() < 0.2:
        changes["meta"] = rng.choice((b"", b"\xc1", rng.randbytes(9), pack({"label": 7})))
    if rng.random() < 0.6:
        changes["handles"] = {rng.choice(("x", "x", "y", "z", "")): _handle_of(rng)}
    return msgspec.structs.replace(message, **changes)


def _handle_of(rng: Random) -> TensorHandle:
    """Return a handle; some name the right tensor."""
    return TensorHandle(
        pool=rng.choice(("in", "in", *POOLS)),
        slot=rng.choice((0, 1, 2, 3, 2**31 - 1, -1, -2)),
        offset=rng.choice((0, 0, 0, 4, 256, 2**62 - 1, -4)),
        shape=rng.choice(((WIDTH,), (WIDTH,), *SHAPES)),
        dtype=rng.choice(("float32", "float32", "float64", "uint8", "object", "", "O8")),
    )


def _spoilt(rng: Random, part: bytes) -> object:
    """Return what a message says, with one or a few of its values made absurd."""
    tree = msgspec.msgpack.decode(part)
    for _ in range(rng.randint(1, 3)):
        _spoil(rng, tree)
    return tree


def _spoil(rng: Random, tree: object) -> None:
    at = tree
    while isinstance(at, dict | list) and at:
        key = rng.choice(list(at)) if isinstance(at, dict) else rng.randrange(len(at))
        below = at[key]
        if not isinstance(below, dict | list) or not below or rng.random() < 0.3:
            what = rng.randrange(5)
            if what == 0 and isinstance(at, dict):
                del at[key]
            elif what == 1 and isinstance(at, dict):
                name = rng.choice(("type", "extra", "", "two\nlines", "sender"))
                at[name] = copy.deepcopy(rng.choice(ABSURD))
            elif what == 2:
                at[key] = max(-(2**63), min(extreme(rng), 2**64 - 1))
            elif what == 3 and isinstance(below, str | bytes) and len(below) < 1000:
                at[key] = below * 3000
            else:
                at[key] = copy.deepcopy(rng.choice(ABSURD))
            return
        at = below
