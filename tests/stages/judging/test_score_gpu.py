"""A judge of full size, with random weights, on a GPU."""

import pytest
import torch

from stages.judging import Score
from tests.stages.judging.groups import Group, member

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU"),
]

MEGAPIXEL = (1024, 1024)


@pytest.fixture(scope="module")
def judge():
    made = Score(weights="random:0", protocol="origin")
    made.load("cuda:0")
    yield made
    made.close()


def group(rows):
    return Group(
        [member(row, source=MEGAPIXEL, edited=MEGAPIXEL) for row in range(rows)],
        max_bytes=1024 * 1024 * 3,
    )


def on_gpu(judge, asked):
    """Return inputs and outputs."""
    judged = torch.zeros(asked.facts.group_size, dtype=torch.uint8, device="cuda")
    return {name: view.cuda() for name, view in asked.views(judge).items()}, {"judged": judged}


def test_a_full_size_judge_answers_a_group_and_says_the_same_again(judge):
    eight = group(8)
    assert judge.prepare(eight.facts, 1) == 1
    answered = [judge.run(*on_gpu(judge, eight), eight.item()) for _ in range(2)]
    assert answered[0] == answered[1]
    assert answered[0].judged_at_once == 8
    scores = [judge.protocol.parse(0, one.texts[0]) for one in answered[0].replies]
    assert all(score is not None for score in scores)


def test_the_footprint_is_about_what_a_row_takes(judge):
    one = group(1)
    judge.prepare(one.facts, 1)
    views = on_gpu(judge, one)
    weights = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    judge.run(*views, one.item())
    work = torch.cuda.max_memory_allocated() - weights
    promised = judge.footprint(one.facts, "cuda:0")
    assert promised.weights_bytes <= weights <= 1.1 * promised.weights_bytes
    assert work / 3 <= promised.work_bytes <= 4 * work
