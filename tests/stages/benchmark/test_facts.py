"""Sizes, seeds and the wire form of what benchmark stages say to each other."""

import math

import msgspec
import pytest

from stages.benchmark.facts import (
    EDIT_AREA,
    GroupMeta,
    Member,
    Replies,
    SampleMeta,
    edited_size,
    sample_seed,
)


@pytest.mark.parametrize(
    ("source", "edited"),
    [  # height, width; by diffusers 0.42.1, calculate_dimensions(1024 * 1024, width / height)
        ((1024, 1024), (1024, 1024)),
        ((1104, 1472), (896, 1184)),
        ((200, 300), (832, 1248)),
        ((300, 200), (1248, 832)),
        ((720, 1280), (768, 1376)),
        ((333, 777), (672, 1568)),
    ],
)
def test_an_edit_has_the_size_that_diffusers_gives_it(source, edited):
    assert edited_size(*source) == edited


def test_an_edit_keeps_its_area_and_aspect_and_no_side_vanishes():
    for height in range(32, 2000, 97):
        for width in range(32, 2000, 89):
            high, wide = edited_size(height, width)
            assert high % 32 == wide % 32 == 0
            assert abs(math.log(high * wide / EDIT_AREA)) < 0.12
            assert abs(math.log(wide / high * height / width)) < 0.12
    assert min(edited_size(32, 8192, 4096)) == 32


def test_a_seed_follows_from_run_seed_and_id_alone():
    seeds = {sample_seed(seed, name) for seed in range(3) for name in ("a", "b", "1", "11")}
    assert len(seeds) == 12
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert sample_seed(7, "cat") == 6024506197517071215


def test_meta_survives_the_wire_and_a_full_group_fits_on_it():
    sample = SampleMeta(
        id="a", group="g", language="en", instruction="x", height=2, width=3, seed=2**63 - 1
    )
    member = Member(
        id="i" * 200,
        group="physical",
        language="en",
        instruction="x" * 4096,
        source=(1, 2),
        edited=(3, 4),
        state="failed",
        reason="r" * 400,
        copy_of=-1,
        tags=("hard",),
    )
    group = GroupMeta(
        members=(member,) * 8, replies=(Replies(texts=("y" * 2000,), retries=("",)),) * 8
    )
    for meta in (sample, group):
        packed = msgspec.msgpack.encode(meta)
        assert msgspec.msgpack.decode(packed, type=type(meta)) == meta
        assert len(packed) < 64 * 1024
