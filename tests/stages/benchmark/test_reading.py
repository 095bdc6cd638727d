"""What judges write, and what is read of it: the texts seen, and hostile ones."""

import json
import math
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.benchmark.protocols.reading import (
    MAX_CHARS,
    Scale,
    read_named,
    read_score,
    read_scores,
)

TEN, FIVE, YES_NO = Scale(0, 10), Scale(1, 5), Scale(0, 1)
PING_FEN, FULL_COLON, FULL_8 = "\u8bc4\u5206", "\uff1a", "\uff18"

READABLE = {
    "Score: 7.500": 7.5,
    "8.500": 8.5,
    f"{PING_FEN}{FULL_COLON}8": 8,
    f"{PING_FEN}{FULL_COLON}{FULL_8}\u5206": 8,
    f"{PING_FEN}\u4e3a8\u3002": 8,
    "7/10": 7,
    "8 out of 10": 8,
    "I would give it 7.5": 7.5,
    "I'd rate this edit a 6 out of 10.": 6,
    '```json\n{"score": 8, "reasoning": "fine"}\n```': 8,
    '```json\n{"score": [8], "reasoning": "fine"}\n```': 8,
    'My answer:\n{"reasoning": "3 of 4 birds are gone", "score": "6.5"}': 6.5,
    '{"score": 8}\nScore: 8': 8,
    "Reason: two of the 3 cups were moved, 2 are left.\nScore: 4": 4,
    "**Score:** 8": 8,
    "**Score**: **8**/10": 8,
    "Score (0-10): 8": 8,
    "Score (out of 10) = 8": 8,
    "Final score is 7 out of 10.": 7,
    "Overall rating: 9 points": 9,
    "Score:\n8": 8,
    "Score: 8. Three people are visible.": 8,
    "Score: 8.\n\n3 people are visible.": 8,
    "<think>score: 3, or rather 4</think>\nScore: 7": 7,
    "score: 0": 0,
    "Score: 10/10": 10,
    "The score reflects the light.\nScore: 9": 9,
}

DOUBTFUL = {
    "empty": "",
    "blank": " \n\t ",
    "words": "The edit is good.",
    "yes": "yes",
    "two that differ": "Score: 7\nScore: 6",
    "changed its mind": "I would give it 7.5. Score: 6",
    "fraction that differs": "Score: 7, so 8/10",
    "above": "Score: 11",
    "far above": "Score: 85",
    "below": "Score: -3",
    "minus sign": "Score: \u22123",
    "not a number": "Score: NaN",
    "not a number beside one": "Score: NaN, rating: 5",
    "infinity": "Score: inf",
    "none": "Score: N/A (7/10)",
    "100 KB of digits": "9" * 100_000,
    "labelled digits without end": "Score: " + "1" * 60_000,
    "zeros without end": "Score: 7." + "0" * 60_000,
    "too long": "Score: 7 " + "." * MAX_CHARS,
    "date": "2025-03-08",
    "labelled date": "Score: 3/10/2025",
    "date that starts like a fraction": "on 7/10/2025",
    "German date": "Score: 8.10.2025",
    "time": "10:30",
    "labelled time": "Score: 8:30",
    "range": "Score: 7-8",
    "range with a dash": "Score: 7 \u2013 8",
    "range with words": "Score: 7 to 8",
    "either": "Score: 7 or 8",
    "between": "Score: between 7 and 8",
    "two numbers": "Score: 8 9",
    "list": "Score: 8, 6",
    "share": "Score: 80%",
    "small share": "Score: 8 percent",
    "other top": "Score: 7/5",
    "alone with another top": "7/5",
    "of a hundred": "85/100",
    "comma": "Score: 8,5",
    "version": "Score: 7.5.2",
    "exponent": "Score: 8e3",
    "hexadecimal": "Score: 0x8",
    "sum": "Score: 4+4",
    "power": "Score: 2^3",
    "superscript": "Score: 8\u00b2",
    "Arabic digits": "Score: \u0668",
    "less than": "Score: <8",
    "negated": "I would not give it 7",
    "some number": "There are 3 people",
    "thought only": "<think>Score: 8",
    "thought again": "<think>a</think>Score: 8<think>no, ",
    "twice in an object": '{"score": 3, "score": 8}',
    "true": '{"score": true}',
    "null": '{"score": null}',
    "JSON NaN": '{"score": NaN}',
    "JSON infinity": '{"score": 1e999}',
    "JSON digits without end": '{"score": ' + "9" * 50_000 + "}",
    "JSON above": '{"score": 11}',
    "JSON and text differ": '{"score": 8}\nScore: 6',
    "two where one is asked for": '{"score": [8, 6]}',
    "object": '{"score": {"a": 8}}',
    "cut off": '{"score": [8, 6], "reasoning": "the li',
    "braces": "{" * 60_000,
    "objects without end": '{"a":' * 10_000,
    "brackets": "[" * 60_000,
    "fences": "```json" * 9_000,
    "labels": "score " * 10_000,
    "verbs": "give it a with a " * 3_000,
    "half fractions": "1/" * 30_000,
    "parentheses": "score (" * 9_000,
}


@pytest.mark.parametrize("reply", READABLE, ids=ascii)
def test_a_text_that_was_seen_is_read(reply):
    assert read_score(reply, TEN) == READABLE[reply]


@pytest.mark.parametrize("why", DOUBTFUL)
def test_a_doubtful_text_is_none(why):
    began = time.process_time()
    assert read_score(DOUBTFUL[why], TEN) is None
    assert time.process_time() - began < 2  # in proportion to its length, whatever it is


def test_yes_and_no_are_scores_where_the_scale_has_only_those():
    assert [read_score(text, YES_NO) for text in ("yes", "No.", "maybe")] == [1, 0, None]
    assert read_score("yes", TEN) is None


@given(st.text(max_size=300))
def test_whatever_is_written_gives_a_score_within_range_or_none(reply):
    for scale in (TEN, FIVE, YES_NO):
        score = read_score(reply, scale)
        assert score is None or scale.low <= score <= scale.high
        for several in (read_scores(reply, 2, scale), read_named(reply, ("a", "b"), scale)):
            assert several is None or len(several) == 2


PIECES = st.sampled_from(
    (
        *("Score", ":", " ", "\n", "7", "8.5", "/10", "-", ".", ",", "[", "]", "{", "}", "or", "%"),
        *("give it ", "10", '"score"', "<think>", "</think>", "```json", "**", "NaN", "out of"),
        PING_FEN,
    )
)


@given(st.lists(PIECES, max_size=12).map("".join))
def test_a_score_that_is_read_stands_in_the_text(reply):
    score = read_score(reply, TEN)
    assert score is None or f"{score:g}" in reply


@given(st.floats(0, 10), st.integers(0, 3))
def test_every_score_of_the_range_is_read_as_it_was_written(value, digits):
    text = f"{value:.{digits}f}"
    for reply in (text, f"Score: {text}", f"{text}/10", json.dumps({"score": float(text)})):
        assert read_score(reply, TEN) == float(text)


@given(st.floats().filter(lambda value: not 0 <= value <= 10))
def test_no_number_beyond_the_range_is_read(value):
    text = repr(value)
    for reply in (text, f"Score: {text}", f'{{"score": {text}}}'):
        assert read_score(reply, TEN) is None


@given(st.floats(0, 10), st.floats(0, 10))
def test_two_statements_are_read_only_if_they_agree(one, other):
    first, second = f"{one:.1f}", f"{other:.1f}"
    same = float(first) if float(first) == float(second) else None
    assert read_score(f"Score: {first}\nI would give it {second}", TEN) == same
    assert read_score(f'{{"score": {first}}} Score: {second}', TEN) == same


@pytest.mark.parametrize(
    ("reply", "scores"),
    [
        ('```json\n{"score": [8, 6], "reasoning": "..."}\n```', (8, 6)),
        ('{"score": ["8", 6.5]}', (8, 6.5)),
        ("Score: [8, 6]", (8, 6)),
        ("[8, 6]", (8, 6)),
        ('{"score": [8, 6]} and again {"score": [8, 6]}', (8, 6)),
        ('{"score": [8, 6]} no, {"score": [8, 7]}', None),
        ('{"score": [8]}', None),
        ('{"score": [8, 6, 7]}', None),
        ('{"score": 8}', None),
        ('{"score": [8, 11]}', None),
        ('{"score": [8, true]}', None),
        ('{"score": [8, [6]]}', None),
        ("8, 6", None),
        ("Score: 8", None),
        ("Score: [8, 6] or [7, 7]", None),
        ("Score: [8, 6], sure: [8, 6]", (8, 6)),
        ("", None),
    ],
)
def test_two_scores_are_read_from_a_list(reply, scores):
    assert read_scores(reply, 2, TEN) == scores


NAMES = ("instruction", "visual_look")


@pytest.mark.parametrize(
    ("reply", "scores"),
    [
        ("Instruction: 5\nVisual look: 4", (5, 4)),
        ("Reason: 3 cats.\n1. **Instruction**: 5/5\n- Visual Look: 4\n", (5, 4)),
        ('{"instruction": 5, "Visual Look": 4}', (5, 4)),
        ('{"score": [5, 4]}', (5, 4)),
        ("Instruction: 5", None),
        ("Instruction: 5\nVisual look: 0", None),
        ("Instruction: 5\nVisual look: 4\nInstruction: 3", None),
        ('{"instruction": 5}', None),
        ('{"instruction": 5, "visual_look": 4, "visual look": 3}', None),
        ('{"instruction": 5, "visual_look": 4}\nInstruction: 5\nVisual look: 3', None),
        ("5 4", None),
        ("", None),
    ],
)
def test_named_scores_are_read_from_lines_or_json(reply, scores):
    expected = dict(zip(NAMES, scores, strict=True)) if scores else None
    assert read_named(reply, NAMES, FIVE) == expected


def test_nothing_that_is_no_number_is_within_a_scale():
    for value in (math.nan, math.inf, -1, 11, True, None, [], "nan", "x"):
        assert TEN.within(value) is None
    assert TEN.within("7/10") == TEN.within(7) == 7
