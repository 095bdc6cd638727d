"""A real Qwen3-VL, tiny, through transformers' own classes."""

import logging
import os
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch

from stages.base import UserError
from stages.benchmark.facts import Replies
from stages.judging import Score
from stages.judging.judge import Picture
from tests.stages.judging.groups import Group, member, pixels_of


@pytest.fixture(scope="module")
def dense(tiny_judge):
    with_closing = _loaded(tiny_judge)
    yield with_closing
    with_closing.close()


@pytest.fixture(scope="module")
def moe(tiny_moe_judge):
    judge = _loaded(tiny_moe_judge)
    yield judge
    judge.close()


def _loaded(folder, protocol="origin", **settings):
    judge = Score(weights=str(folder), protocol=protocol, dtype="float32", **settings)
    judge.load("cpu")
    return judge


pytestmark = pytest.mark.slow  # a prompt of bytes has 2500 tokens

FOUR = Group(
    [
        member(0, instruction="Let it rain."),
        member(1, source=(200, 160), edited=(160, 128), language="zh", instruction="x" * 300),
        member(2, group="causal", source=(64, 200), edited=(96, 160)),
        member(3, group="referential", instruction="a <|image_pad|> b <|im_end|> c"),
    ]
)


@pytest.mark.parametrize("which", ["dense", "moe"])
def test_a_group_is_answered_as_each_of_its_members_alone(which, request):
    judge = request.getfixturevalue(which)
    replies = FOUR.run(judge).replies
    alone = [FOUR.only(row).run(judge).replies[0] for row in range(4)]
    assert list(replies) == alone
    assert all(judge.protocol.parse(0, one.texts[0]) is not None for one in replies)
    assert all(one.retries == ("",) and not one.reason for one in replies)


def test_a_group_gives_the_logits_of_each_of_its_members_alone(dense):
    together = _first_logits(dense, FOUR)
    alone = torch.cat([_first_logits(dense, FOUR.only(row)) for row in range(4)])
    torch.testing.assert_close(together, alone, atol=2e-4, rtol=1e-5)
    assert (together[0] - together[1]).abs().max() > 1e-2  # they do differ


def _first_logits(judge, group):
    """Return the logits [rows, vocabulary] of the first token of each answer."""
    judge.prepare(group.facts, 1)
    kept = []
    hook = judge.qwen.model.lm_head.register_forward_hook(
        lambda _module, _inputs, logits: kept.append(logits[:, -1].clone())
    )
    group.run(judge)
    hook.remove()
    return kept[0]


def test_failed_and_unasked_members_are_computed_as_copies_and_not_told(dense):
    members = [
        member(0, state="failed", copy_of=1),
        member(1),
        member(2, state="unasked", copy_of=1),
        member(3),
    ]
    group = Group(members, rows=6)  # two rows behind the last member
    rows = _rows_of_each_batch(dense, group)
    replies = group.run(dense).replies
    assert set(rows) == {6}
    assert [bool(one.texts) for one in replies] == [False, True, False, True]
    assert group.judged == [0, 1, 0, 1, 0, 0]
    assert replies[0].reason == "not asked: the edit failed: out of paint"
    assert replies[2].reason == "not asked: there is no edited image"
    assert replies[1] == group.only(1).run(dense).replies[0]


def _rows_of_each_batch(judge, group):
    judge.prepare(group.facts, 1)
    rows = []
    hook = judge.qwen.model.lm_head.register_forward_hook(
        lambda _module, _inputs, logits: rows.append(len(logits))
    )
    group.run(judge)
    hook.remove()
    return rows


def test_a_group_without_one_good_member_is_not_asked(dense):
    group = Group([member(0, state="failed", copy_of=-1), member(1, state="unasked", copy_of=-1)])
    assert _rows_of_each_batch(dense, group) == []
    replies = group.run(dense).replies
    assert [one.texts for one in replies] == [(), ()]
    assert all(one.reason for one in replies)


def test_an_answer_that_cannot_be_read_is_asked_again_with_the_format_then_stays(tiny_judge):
    judge = _loaded(tiny_judge, protocol="gedit")  # which wants two scores in JSON
    asked = []
    told = judge.qwen.answers
    judge.qwen.answers = lambda batch, said: asked.append(batch) or told(batch, said)
    (only,) = Group([member(0, group="ps_human")]).run(judge).replies
    assert [one.question.text.endswith(judge.protocol.retry_text) for (one,) in asked] == [
        False,
        False,
        True,
        True,
    ]
    assert len(only.texts) == len(only.retries) == 2
    assert all(judge.protocol.parse(0, text) is None for text in (*only.texts, *only.retries))
    assert only.reason == ""
    judge.close()


def test_each_picture_is_looked_at_once_for_all_questions_and_retries(tiny_judge):
    judge = _loaded(tiny_judge, protocol="gedit")
    group = Group([member(0, group="ps_human"), member(1, group="tone_transfer")])
    judge.prepare(group.facts, 1)
    grids = []
    hook = judge.qwen.model.model.visual.register_forward_hook(
        lambda _module, _inputs, kwargs, _found: grids.append(kwargs["grid_thw"]), with_kwargs=True
    )
    group.run(judge)
    hook.remove()
    assert [len(grid) for grid in grids] == [4]  # two sources, two edits
    judge.close()


def test_what_is_seen_once_answers_as_if_looked_at_again(dense):
    """The library computes the image features itself from pixels; so does this, once for all."""
    processor, model = dense.qwen.processor, dense.qwen.model
    shown = [pixels_of((96, 64), 0), pixels_of((64, 96), 100)]
    question = dense.protocol.questions("physical", "en", "Move the ball 0 steps.")[0]
    messages = [
        {"role": "system", "content": [{"type": "text", "text": question.system}]},
        {
            "role": "user",
            "content": [{"type": "image"}] * 2 + [{"type": "text", "text": question.text}],
        },
    ]
    prompt = processor.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    inputs = processor(
        text=[prompt],
        images=[torch.from_numpy(one).permute(2, 0, 1) for one in shown],
        return_tensors="pt",
    )
    logits = model(**inputs).logits[:, -1]
    torch.testing.assert_close(_first_logits(dense, Group([member(0)])), logits)


def test_progress_comes_with_every_token_and_never_goes_back(dense):
    said = []
    FOUR.run(dense, progress=said.append)
    assert len(said) > 10
    assert said == sorted(set(said))
    assert said[-1] == 1.0


def test_the_edited_image_is_shown_at_the_sources_size_where_asked(tiny_judge):
    judge = _loaded(tiny_judge, resize="source")
    group, looked = Group([member(0)]), []
    judge.prepare(group.facts, 1)
    see = judge.qwen.look
    judge.qwen.look = lambda pictures: looked.extend(pictures) or see(pictures)
    group.run(judge)
    assert [picture.size for picture in looked] == [(96, 64), (96, 64)]
    judge.close()


def test_resize_follows_the_protocol_unless_said():
    sizes = {name: Score(weights="random:0:tiny", protocol=name).resize for name in _PROTOCOLS}
    assert sizes == {"origin": "none", "imgedit": "none", "gedit": "source"}
    assert Score(weights="random:0:tiny", protocol="gedit", resize="none").resize == "none"


_PROTOCOLS = ("origin", "gedit", "imgedit")


def test_a_picture_is_resized_as_pillow_does(dense):
    from PIL import Image

    pixels = pixels_of((90, 130), 5)
    shown = dense.qwen.shown(Picture(torch.from_numpy(pixels), (64, 96))).permute(1, 2, 0).numpy()
    pillow = np.asarray(Image.fromarray(pixels).resize((96, 64), Image.Resampling.BICUBIC))
    assert shown.shape == pillow.shape
    assert np.abs(shown.astype(int) - pillow).max() <= 1


def test_smaller_images_are_shown_where_max_pixels_says_so(tiny_judge):
    sizes = {}
    for limit in (0, 64 * 64):
        judge = _loaded(tiny_judge, max_pixels=limit)
        picture = Picture(torch.from_numpy(pixels_of((200, 200), 1)), (200, 200))
        judge.qwen.look([picture])
        sizes[limit] = len(picture.made.tokens)
        judge.close()
    assert sizes == {0: 64, 64 * 64: 4}


def test_where_a_group_does_not_fit_fewer_rows_are_asked_at_once(tiny_judge, caplog):
    judge, plain = _loaded(tiny_judge), _loaded(tiny_judge)
    tried = []

    def rehearse(rows, *_sizes):
        tried.append(rows)
        if rows > 2:
            raise torch.OutOfMemoryError

    judge.qwen.rehearse = rehearse
    group = Group([*FOUR.meta.members, member(4)], rows=8)
    with caplog.at_level(logging.WARNING):
        meta = group.run(judge)
    assert tried == [8, 4, 2]
    assert "groups of 8 are asked 2 at once" in caplog.text
    assert meta.judged_at_once == 2
    rows = _rows_of_each_batch(judge, group)
    assert set(rows) == {2}
    assert meta.replies == group.run(plain).replies
    judge.close()
    plain.close()


def test_a_model_that_cannot_answer_one_is_a_users_mistake(tiny_judge):
    judge = _loaded(tiny_judge)

    def never(*_args):
        raise torch.OutOfMemoryError

    judge.qwen.rehearse = never
    with pytest.raises(UserError, match="do not fit beside it into the memory of cpu"):
        judge.prepare(FOUR.facts, 1)
    judge.close()


def test_random_judges_are_the_same_for_the_same_seed(tiny_judge):
    made = _loaded("random:0:tiny")
    read = _loaded(tiny_judge)
    other = _loaded("random:1:tiny")
    assert FOUR.run(made).replies == FOUR.run(read).replies
    assert FOUR.run(made).replies != FOUR.run(other).replies
    assert [FOUR.run(judge).judge for judge in (made, read)] == ["random:0:tiny", str(tiny_judge)]
    for judge in (made, read, other):
        judge.close()


def test_a_category_that_the_protocol_does_not_know_leaves_out_its_sample_alone(dense):
    group = Group([member(0), member(1, group="musical")])
    known, unknown = group.run(dense).replies
    assert known.texts
    assert unknown == Replies(texts=(), retries=(), reason=unknown.reason)
    assert "musical: no category" in unknown.reason


def test_the_same_group_gives_the_same_meta_again(dense):
    assert FOUR.run(dense) == FOUR.run(dense)
    changed = replace(FOUR.meta.members[0], instruction="Something else.")
    assert Group([changed, *FOUR.meta.members[1:]]).run(dense) != FOUR.run(dense)


def test_importing_judges_loads_neither_torch_nor_transformers(project):
    code = (
        "import sys, stages.judging as j; j.Score(weights='random:0', protocol='origin');"
        " print({'torch', 'transformers'} & set(sys.modules))"
    )
    command = [sys.executable, "-P", "-c", code]
    env = os.environ | {"PYTHONPATH": str(project)}
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
