"""Judge groups: made of the whole set, of one size each, whatever is asked for."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.base import UserError
from stages.benchmark.facts import edited_size
from stages.benchmark.plan import asked_for, make_plan
from stages.benchmark.samples import Sample

SIZES = [(32, 48), (48, 32), (64, 96), (40, 40), (0, 0)]  # (0, 0): cannot be used


def sample(name, size=(32, 48), group="physical"):
    problem = "" if size[0] else "it is broken"
    return Sample(
        id=name,
        place="record 1",
        group=group,
        language="en",
        instruction="x",
        height=size[0],
        width=size[1],
        problem=problem,
    )


def plan_of(samples, group_size=8, **asked):
    wanted = asked_for(samples, "set", **({"categories": (), "limit": 0} | asked))
    return make_plan(samples, asked=wanted, area=256 * 256, group_size=group_size)


def test_groups_have_one_size_and_go_by_id_and_large_ones_come_first():
    samples = [sample(name) for name in "hgfedcba"] + [sample("z", (40, 40))]
    plan = plan_of(samples, group_size=3)
    named = ["".join(samples[at].id for at in group) for group in plan.groups]
    assert named == ["abc", "def", "gh", "z"]
    assert plan.needs() == (3, 6, 8, 9), "320x224 is more than 256x256"


def test_what_has_no_size_comes_last_in_groups_of_its_own():
    samples = [sample("a", (0, 0)), sample("b"), sample("c", (0, 0)), sample("d")]
    assert plan_of(samples).groups == ((1, 3), (0, 2))


@given(
    st.lists(st.sampled_from(SIZES), min_size=1, max_size=60),
    st.integers(1, 9),
    st.integers(1, 60),
    st.randoms(use_true_random=False),
)
def test_a_limit_regroups_nobody_and_order_follows_groups(sizes, group_size, limit, random):
    samples = [sample(f"{at:02}", size, "ab"[at % 2]) for at, size in enumerate(sizes)]
    random.shuffle(samples)
    whole = plan_of(samples, group_size)
    some = plan_of(samples, group_size, limit=limit, categories=("a",) if len(sizes) > 1 else ())
    assert some.groups == whole.groups
    assert sorted(at for group in whole.groups for at in group) == list(range(len(samples)))
    for group in whole.groups:
        assert 1 <= len(group) <= group_size
        one_size = {edited_size(s.height, s.width, 256 * 256) if s.height else None
                    for s in (samples[at] for at in group)}  # fmt: skip
        assert len(one_size) == 1
    # an item of a group waits for just so many that all asked members of it are among them
    assert len(some.needs()) == len(some.asked_groups)
    for number, need in zip(some.asked_groups, some.needs(), strict=True):
        asked = some.asked.intersection(some.groups[number])
        assert asked
        assert asked <= set(some.order[:need])
        assert need == max(some.order.index(at) for at in asked) + 1
    assert list(some.needs()) == sorted(some.needs())
    assert set(some.order) == some.asked


def test_the_order_of_samples_does_not_depend_on_the_size_of_groups():
    samples = [sample(f"{at}", SIZES[at % 5]) for at in range(40)]
    assert plan_of(samples, 1).order == plan_of(samples, 8).order


def test_a_limit_takes_the_first_of_the_set_and_of_categories():
    samples = [sample(str(at), SIZES[at % 4], "ab"[at % 2]) for at in range(10)]
    assert plan_of(samples, limit=3).asked == {0, 1, 2}
    assert plan_of(samples, limit=2, categories=["B"]).asked == {1, 3}
    assert plan_of(samples, limit=99).asked == set(range(10))


def test_a_category_may_be_named_in_chinese():
    samples = [sample("a", group="causal"), sample("b")]
    assert plan_of(samples, categories=["\u56e0\u679c"]).asked == {0}


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"categories": ["casual"]}, "no category `casual`; did you mean `causal`. There are cau"),
        ({"categories": ["social"]}, "no category `social`"),
        ({"limit": -1}, "limit = -1: at least 1, or 0 for all"),
        ({"group_size": 0}, "group_size = 0: a judge group has at least 1 sample"),
    ],
)
def test_what_cannot_be_asked_for_is_refused_by_name(wrong, message):
    with pytest.raises(UserError, match=message):
        plan_of([sample("a", group="causal"), sample("b")], **wrong)


def test_an_area_of_nothing_is_refused():
    with pytest.raises(UserError, match="area = 0"):
        make_plan([sample("a")], asked=frozenset({0}), area=0, group_size=8)
