"""What a death has cost: who is believed, and which items need whose pools."""

import pytest

from ipc.records import ItemPlace, TensorPlace
from runtime.ledger import HERE, NOWHERE
from runtime.plan import Plan
from runtime.plan_pools import PoolPlan
from runtime.replay import merged, needs, runs_of, take_stock
from runtime.worker_plan import WorkerPlan

PATH = ("read", "encode", "denoise", "decode", "write")
READ, ENCODE, DENOISE, DECODE, WRITE = range(len(PATH))
WORKERS = {"read/0": ("read",), "both/0": ("encode", "decode")}
WORKERS |= {f"denoise/{n}": ("denoise",) for n in (0, 1)} | {"write/0": ("write",)}
READERS = {
    "read/0": {"frames": ("encode", "write")},
    "both/0": {"tokens": ("denoise", "decode"), "middle": ("write",)},
    "denoise/0": {"latents": ("decode",)},
    "denoise/1": {"latents": ("decode",)},
}


def pool(owner):
    places = tuple(
        TensorPlace(name=name, offset=0, shape=(4,), dtype="float32", readers=readers)
        for name, readers in READERS[owner].items()
    )
    return PoolPlan(owner, None, num_slots=4, slot_bytes=64, places=places)


PLAN = Plan(
    workers=tuple(WorkerPlan(name, stages, None, 1) for name, stages in WORKERS.items()),
    path=PATH,
    window=8,
    num_items=100,
    items_per_segment=4,
    pools=tuple(map(pool, READERS)),
    memory=(),
    links=(),
    warnings=(),
    fallbacks=(),
    room={},
)


def place(item, position, worker, attempt=0):
    return ItemPlace(item=item, attempt=attempt, position=position, worker=worker)


def stock(under_way, claims, *, dead=(), gone=()):
    living = WORKERS.keys() - set(dead)
    return take_stock(under_way, claims, living, PLAN, [pool(owner) for owner in gone])


def test_what_nobody_tells_of_is_lost():
    toll = stock({3: 0, 4: 0}, {"both/0": [place(4, ENCODE, HERE)]})
    assert (toll.lost, toll.held) == ((3,), {4: ENCODE})


def test_the_furthest_claim_is_true_whoever_is_asked_first():
    claims = {
        "supervisor": [place(3, READ, "read/0")],
        "read/0": [place(3, ENCODE, "both/0")],
        "both/0": [place(3, DENOISE, "denoise/0")],
        "denoise/1": [place(3, DECODE, "both/0")],
    }
    for order in (claims, dict(reversed(claims.items()))):
        assert stock({3: 0}, order, dead=["denoise/0"]).held == {3: DECODE}


def test_what_was_sent_to_the_living_is_held_and_to_the_dead_is_lost():
    claims = {"both/0": [place(3, DENOISE, "denoise/0"), place(4, DENOISE, "denoise/1")]}
    toll = stock({3: 0, 4: 0}, claims, dead=["denoise/0"])
    assert (toll.lost, toll.held) == ((3,), {4: DENOISE})


def test_what_went_to_somebody_who_died_before_is_lost():
    assert stock({3: 0}, {"both/0": [place(3, DENOISE, NOWHERE)]}).lost == (3,)


def test_who_has_an_item_is_believed_before_who_sent_it_there():
    """The sender of it may have died, and another one have the same name by now."""
    claims = {
        "both/0": [place(3, DENOISE, NOWHERE)],
        "denoise/0": [place(3, DENOISE, HERE)],
    }
    for order in (claims, dict(reversed(claims.items()))):
        assert stock({3: 0}, order).held == {3: DENOISE}


def test_of_older_and_of_newer_attempts_nothing_is_believed():
    claims = {"denoise/0": [place(3, DENOISE, HERE, attempt=0), place(4, DENOISE, HERE, attempt=2)]}
    assert stock({3: 1, 4: 1}, claims).lost == (3, 4)


def test_what_is_finished_or_not_begun_is_no_matter():
    assert stock({}, {"denoise/0": [place(3, DENOISE, HERE)]}).held == {}


@pytest.mark.parametrize(
    ("position", "owner", "is_lost"),
    [
        (ENCODE, "both/0", False),  # it writes it anew
        (DENOISE, "both/0", True),
        (DECODE, "both/0", True),
        (WRITE, "both/0", True),
        (WRITE, "denoise/0", False),  # nobody reads it any more
        (DECODE, "denoise/0", True),
        (READ, "read/0", False),
        (DECODE, "read/0", True),  # the sink will read it
    ],
)
def test_what_has_a_tensor_in_a_pool_that_is_gone_is_lost(position, owner, is_lost):
    assert needs(PLAN, position, pool(owner)) == is_lost
    (worker, *_others) = PLAN.workers_of(PATH[position])
    toll = stock({3: 0}, {worker: [place(3, position, HERE)]}, gone=[owner])
    assert toll.lost == ((3,) if is_lost else ())


def test_runs_are_of_neighbours():
    assert runs_of([]) == ()
    assert runs_of([0, 1, 2, 5, 7, 8]) == ((0, 3), (5, 6), (7, 9))


def test_runs_of_items_are_merged_where_they_touch():
    assert merged([(0, 0), (5, 7), (1, 3), (3, 4), (6, 9), (6, 7)]) == ((1, 4), (5, 9))
    assert merged([]) == ()
