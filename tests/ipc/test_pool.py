import pytest
from hypothesis import given
from hypothesis import strategies as st

from ipc.errors import ProtocolError, WouldBlock
from ipc.pool import PoolStats, SlotPool


@pytest.fixture
def pool():
    return SlotPool("encode/0.0@host#1", num_slots=2)


def test_a_slot_is_free_when_all_its_readers_have_let_go(pool):
    slot = pool.lease(10, 0, ["denoise", "decode"])
    assert pool.free(slot, 10, 0, "decode") is False
    assert pool.free(slot, 10, 0, "denoise") is True
    assert pool.stats() == PoolStats(slots=2, free=2, high_water=1)


def test_a_full_pool_would_block_until_a_slot_is_freed(pool):
    first, _second = pool.lease(10, 0, ["denoise"]), pool.lease(11, 0, ["denoise"])
    with pytest.raises(WouldBlock, match="all 2 slots are leased"):
        pool.lease(12, 0, ["denoise"])
    assert not pool.can_lease(12, 0)
    assert pool.can_lease(10, 0), "it has one"
    pool.free(first, 10, 0, "denoise")
    assert pool.lease(12, 0, ["denoise"]) == first


def test_slots_come_back_in_any_order(pool):
    slots = {item: pool.lease(item, 0, ["denoise"]) for item in (10, 11)}
    pool.free(slots[11], 11, 0, "denoise")
    pool.lease(12, 0, ["denoise"])
    assert pool.leases() == [(10, 0), (12, 0)]


@pytest.mark.parametrize(
    ("item", "attempt", "reader", "complaint"),
    [
        (11, 0, "denoise", "item 11.0, but 10.0 holds it"),
        (10, 1, "denoise", "item 10.1, but 10.0 holds it"),
        (10, 0, "write", r"only \['denoise'\] still read it"),
    ],
)
def test_letting_go_of_what_one_does_not_hold_is_a_protocol_error(
    pool, item, attempt, reader, complaint
):
    slot = pool.lease(10, 0, ["denoise"])
    with pytest.raises(ProtocolError, match=complaint):
        pool.free(slot, item, attempt, reader)
    assert pool.leases() == [(10, 0)]


def test_letting_go_twice_is_a_protocol_error(pool):
    slot = pool.lease(10, 0, ["denoise"])
    pool.free(slot, 10, 0, "denoise")
    with pytest.raises(ProtocolError, match="but nobody holds it"):
        pool.free(slot, 10, 0, "denoise")


def test_an_item_has_one_slot_for_all_its_stages_here(pool):
    slot = pool.lease(10, 0, ["denoise", "write"])
    assert pool.slot_of(10, 0) == slot
    with pytest.raises(ProtocolError, match=r"item 10\.0 has a slot already"):
        pool.lease(10, 0, ["denoise"])
    assert pool.lease(10, 1, ["denoise"]) != slot, "a new attempt has a slot of its own"


def test_a_failed_item_is_held_only_by_readers_of_what_was_written(pool):
    slot = pool.lease(10, 0, ["denoise", "decode", "write"])
    assert pool.keep_for(slot, ["denoise", "decode"]) is False
    pool.free(slot, 10, 0, "denoise")
    assert pool.keep_for(slot, []) is True
    assert pool.slot_of(10, 0) is None


def test_a_slot_is_held_until_all_its_tensors_are_written_also_those_that_nobody_reads(pool):
    slot = pool.lease(10, 0, ["denoise"], writes=["tokens", "unread"])
    assert pool.written(slot, ["tokens"]) is False
    assert pool.free(slot, 10, 0, "denoise") is False
    assert pool.slot_of(10, 0) == slot
    assert pool.written(slot, ["unread"]) is True
    assert pool.lease(11, 0, [], writes=["tokens"]) == slot
    assert pool.written(slot, ["tokens"]) is True, "nobody is to let go of it"


def test_what_a_failed_item_never_writes_holds_no_slot(pool):
    slot = pool.lease(10, 0, ["denoise"], writes=["tokens", "unread"])
    assert pool.keep_for(slot, []) is True


@given(st.lists(st.tuples(st.integers(0, 5), st.sampled_from("ab")), max_size=60))
def test_whatever_happens_no_slot_is_lost_or_given_twice(steps):
    pool = SlotPool("p", num_slots=3)
    slots, readers = {}, {}
    for item, reader in steps:
        if item not in slots and len(slots) < 3:
            slots[item], readers[item] = pool.lease(item, 0, ["a", "b"]), {"a", "b"}
        elif item in slots and reader in readers[item]:
            readers[item].remove(reader)
            if pool.free(slots[item], item, 0, reader):
                assert not readers[item]
                del slots[item]
        assert len(set(slots.values())) == len(slots)
        assert pool.stats().free == 3 - len(slots)


# --- when a reader is dead ------------------------------------------------------------------------


def test_a_reader_that_is_excused_has_let_go_and_may_say_so_later_but_once(pool):
    slot = pool.lease(10, 0, ["denoise", "decode"])
    assert pool.excuse(10, 0, {"denoise"}) is False
    assert pool.free(slot, 10, 0, "denoise") is False, "it had said so before it died"
    with pytest.raises(ProtocolError, match=r"only \['decode'\] still read it"):
        pool.free(slot, 10, 0, "denoise")
    assert pool.free(slot, 10, 0, "decode") is True


def test_what_an_excused_reader_says_late_is_not_of_who_has_the_slot_now(pool):
    slot = pool.lease(10, 0, ["denoise"])
    assert pool.excuse(10, 0, {"denoise"}) is True
    assert pool.lease(11, 0, ["denoise"]) == slot
    assert pool.free(slot, 10, 0, "denoise") is False
    assert pool.leases() == [(11, 0)]
    assert pool.free(slot, 11, 0, "denoise") is True


def test_only_who_reads_can_be_excused_and_only_of_what_is_leased(pool):
    assert pool.excuse(10, 0, {"denoise"}) is False
    slot = pool.lease(10, 0, ["denoise"])
    assert pool.excuse(10, 0, {"write"}) is False
    assert pool.excuse(10, 1, {"denoise"}) is False, "it is another attempt"
    with pytest.raises(ProtocolError, match="only"):
        pool.free(slot, 10, 0, "write")
    assert pool.leases() == [(10, 0)]


def test_an_excused_slot_is_held_until_it_is_written(pool):
    slot = pool.lease(10, 0, ["denoise"], writes=["tokens"])
    assert pool.excuse(10, 0, {"denoise"}) is False
    assert pool.written(slot, ["tokens"]) is True


def test_of_finished_items_everybody_is_excused():
    pool = SlotPool("p", num_slots=4)
    slots = {item: pool.lease(item, 0, ["denoise", "write"]) for item in (3, 4, 5, 6)}
    pool.free(slots[3], 3, 0, "denoise")
    pool.excuse_finished(4, (6,), window=8)
    assert pool.leases() == [(4, 0), (5, 0)]
    assert pool.free(slots[6], 6, 0, "write") is False, "it comes late, and that is all"
    assert pool.free(slots[3], 3, 0, "write") is False
    with pytest.raises(ProtocolError, match="nobody holds it"):
        pool.free(slots[3], 3, 0, "denoise")  # which it had said in time


def test_what_was_excused_is_forgotten_when_the_window_has_passed():
    pool = SlotPool("p", num_slots=2)
    slot = pool.lease(3, 0, ["denoise"])
    pool.excuse_finished(4, (), window=8)
    pool.excuse_finished(11, (), window=8)
    assert pool.free(slot, 3, 0, "denoise") is False
    slot = pool.lease(4, 0, ["denoise"])
    pool.excuse_finished(5, (), window=8)
    pool.excuse_finished(13, (), window=8)
    with pytest.raises(ProtocolError, match="nobody holds it"):
        pool.free(slot, 4, 0, "denoise")


def test_giving_up_frees_older_attempts_whoever_holds_them(pool):
    slot = pool.lease(10, 0, ["denoise"], writes=["tokens"])
    other = pool.lease(11, 0, ["denoise"])
    pool.give_up(10, 1)
    assert pool.leases() == [(11, 0)]
    assert pool.lease(10, 1, ["denoise"]) == slot
    pool.give_up(10, 1)
    assert pool.leases() == [(10, 1), (11, 0)], "this attempt is the one that counts"
    assert pool.free(other, 11, 0, "denoise") is True


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["lease", "free", "excuse", "give up"]),
            st.integers(0, 3),
            st.sampled_from("ab"),
        ),
        max_size=60,
    )
)
def test_whoever_dies_no_slot_is_lost_or_given_twice(steps):
    """`free` is said once by each reader of each attempt, excused before or not."""
    pool = SlotPool("p", num_slots=3)
    attempts, slots, said = dict.fromkeys(range(4), 0), {}, set()
    for what, item, reader in steps:
        key = (item, attempts[item])
        if what == "lease" and key not in slots and pool.can_lease(*key):
            slots[key] = pool.lease(*key, ["a", "b"])
        elif what == "free" and key in slots and (*key, reader) not in said:
            pool.free(slots[key], *key, reader)
            said.add((*key, reader))
        elif what == "excuse" and key in slots:
            pool.excuse(*key, {reader})
        elif what == "give up":
            attempts[item] += 1
            pool.give_up(item, attempts[item])
        held = [pool.slot_of(*lease) for lease in pool.leases()]
        assert len(set(held)) == len(held) == 3 - pool.stats().free
    for item, attempt in attempts.items():
        pool.give_up(item, attempt + 1)
    assert pool.stats().free == 3
