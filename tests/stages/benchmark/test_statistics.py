import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.benchmark.statistics import Summary, summarize, summarize_groups

SCORES = st.lists(st.floats(0, 10) | st.none(), max_size=30)


def test_the_figures_are_those_of_numpy():
    values = [1.0, 4.0, 4.0, 9.0]
    found = summarize([*values, None])
    assert (found.count, found.nulls) == (4, 1)
    assert found.mean == pytest.approx(np.mean(values))
    assert found.std == pytest.approx(np.std(values))
    assert (found.median, found.min, found.max) == (4, 1, 9)
    assert found.interval[0] < found.mean < found.interval[1]


def test_where_nothing_has_a_score_there_is_no_mean():
    assert summarize([None, None]) == Summary(count=0, nulls=2)
    assert summarize([]) == Summary(count=0)
    assert summarize_groups([[None], []], overall="groups") == Summary(count=0, nulls=1)


def test_one_score_has_no_interval():
    assert summarize([7.0]).interval is None
    assert summarize([7.0]).mean == 7


@pytest.mark.parametrize("odd", [math.nan, math.inf])
def test_what_is_not_finite_is_refused(odd):
    with pytest.raises(ValueError, match="not a finite number"):
        summarize([1.0, odd])


def test_groups_of_different_size_weigh_the_same_where_the_rule_says_so():
    groups = [[10.0] * 9, [0.0], [None]]
    assert summarize_groups(groups, overall="groups").mean == 5
    assert summarize_groups(groups, overall="samples").mean == 9


def test_the_interval_holds_the_mean_in_about_so_many_cases_as_it_says():
    random = np.random.default_rng(0)
    held = 0
    for _ in range(100):
        low, high = summarize(random.normal(5, 1, 60).tolist()).interval
        held += low <= 5 <= high
    assert 88 <= held <= 99


@given(SCORES)
def test_the_same_scores_always_have_the_same_figures(values):
    assert summarize(values) == summarize(values)


@given(st.lists(SCORES, max_size=5), st.sampled_from(["samples", "groups"]))
def test_every_sample_is_counted_and_every_figure_is_in_order(groups, overall):
    found = summarize_groups(groups, overall=overall)
    assert found.count + found.nulls == sum(map(len, groups))
    if found.count:
        assert found.min <= found.median <= found.max
        assert found.min - 1e-9 <= found.mean <= found.max + 1e-9
    if found.interval:
        assert found.min - 1e-9 <= found.interval[0] <= found.interval[1] <= found.max + 1e-9


def test_many_scores_are_drawn_in_pieces():
    found = summarize(np.linspace(0, 10, 50_000).tolist())
    assert found.mean == pytest.approx(5)
    assert found.interval[1] - found.interval[0] < 0.1
