"""The soak: its arithmetic, what it finds grown, and a short one."""

import hashlib
import os
from contextlib import closing

import numpy as np
import pytest

from ipc.host import HostPool, MappedPool
from tools.soak import ALL, NUM_WORKERS, Killer, Soak, lines, soak
from tools.soak_stages import expected, mixed, numbers_of
from tools.soak_watch import Held, Sample, held_by, take_sample, workers_of

MIB = 2**20


def held(mib=100, descriptors=40):
    return Held(mib * MIB, (mib - 10) * MIB, {7: 10 * MIB}, descriptors, 300, 5)


def sample(items, **changes):
    return Sample(items, 1.0, {"supervisor": held(**changes), ALL: held(**changes)}, {})


def soaked(*samples, **changes):
    facts = {"exit_code": 0, "is_right": True, "kills": 0, "peak_bytes": 0} | changes
    return Soak(
        items=1000,
        wall_s=1.0,
        items_per_s=1000.0,
        first=samples[0] if samples else None,
        last=samples[-1] if samples else None,
        samples=list(samples),
        **facts,
    )


@pytest.mark.parametrize(
    ("last", "problem"),
    [
        (sample(1000, mib=108), None),
        (sample(1000, mib=109), "9.0 MiB more memory"),
        (sample(1000, descriptors=41), "1 more descriptors"),
        (sample(1000, descriptors=39), None),
    ],
)
def test_what_grows_is_found(last, problem):
    found = soaked(sample(100), last)
    assert found.problems() == ([problem] if problem else [])
    assert "all" in lines(found)[-1]


def test_a_run_that_failed_or_was_wrong_or_too_short_is_no_proof():
    both = sample(100), sample(1000)
    assert soaked(*both, exit_code=1).problems()
    assert soaked(*both, is_right=False).problems()
    assert soaked(both[0]).problems() == ["too short to see growth"]
    assert soaked().problems() == ["too short to see growth"]


def test_one_item_more_or_less_or_twice_is_another_output():
    numbers = mixed(numbers_of(np.arange(50, dtype=np.uint64)))
    segments = [numbers[:25], numbers[25:]]
    digests = [hashlib.sha256(segment.tobytes()).digest() for segment in segments]
    assert expected(50, 25).sha256 == hashlib.sha256(b"".join(digests)).hexdigest()
    assert len({expected(count, 25).sha256 for count in (49, 50, 51)}) == 3


class Crew:
    """Looks as if so many workers lived."""

    def __init__(self, pids):
        self.pids = pids

    def __call__(self, _supervisor):
        return self.pids


def test_kills_are_the_same_for_one_seed_and_none_without_a_rate(monkeypatch):
    monkeypatch.setattr("tools.soak.workers_of", Crew({str(n): -1 for n in range(NUM_WORKERS)}))
    killed = []
    monkeypatch.setattr("tools.soak.os.kill", lambda *what: killed.append(what))

    def moments(every, seed):
        killer = Killer(every, seed)
        counts = []
        for items in range(0, 10_000, 10):
            killer.look(0, items)
            counts.append(killer.num_kills)
        return counts

    assert moments(1000, 0) == moments(1000, 0) != moments(1000, 1)
    assert 4 <= moments(1000, 0)[-1] <= 20
    assert moments(0, 0)[-1] == 0
    assert len(killed) > 0
    monkeypatch.setattr("tools.soak.workers_of", Crew({"mix/0": -1}))
    assert moments(1000, 0)[-1] == 0, "the others are being restarted"


def test_a_process_is_seen_with_what_it_holds():
    before = held_by(os.getpid())
    read, write = os.pipe()
    with (
        closing(HostPool("x", owner="x", num_slots=1, slot_bytes=MIB)) as pool,
        MappedPool(pool.address, writable=True),
    ):
        after = held_by(os.getpid())
        both = after + after
    os.close(read)
    os.close(write)
    assert after.descriptors == before.descriptors + 4  # a mapping has one too
    assert after.pools_bytes == both.pools_bytes == before.pools_bytes + MIB
    assert after.rss_bytes > after.own_bytes > MIB
    assert workers_of(os.getpid()) == {}
    assert take_sample(os.getpid(), items=0, at_s=0.0, num_workers=NUM_WORKERS) is None


@pytest.mark.slow
def test_a_short_soak_is_right_and_its_processes_are_seen(tmp_path):
    found = soak(tmp_path / "soak", items=3000, kill_every=0, seed=0)
    assert (found.exit_code, found.is_right, found.kills) == (0, True, 0)
    assert found.samples
    assert set(found.samples[0].held) == {"supervisor", "count/0", "mix/0", "digest/0", ALL}
    assert found.items_per_s > 0


@pytest.mark.slow
def test_a_short_soak_with_kills_is_right(tmp_path):
    found = soak(tmp_path / "soak", items=5000, kill_every=1000, seed=0)
    assert found.kills
    assert (found.exit_code, found.is_right) == (0, True)
