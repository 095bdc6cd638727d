"""Answers are kept whole where they fit, and are never cut into another number."""

from hypothesis import given
from hypothesis import strategies as st

from stages.judging.replies import cut, reply_bytes
from tests.stages.judging.groups import member


@given(st.text(max_size=400), st.integers(30, 500), st.integers(30, 300))
def test_a_cut_answer_fits_and_begins_and_ends_as_it_did(text, max_bytes, max_chars):
    shown = cut(text, max_bytes=max_bytes, max_chars=max_chars)
    assert len(shown) <= max_chars
    assert len(shown.encode()) <= max_bytes
    if len(text) <= max_chars and len(text.encode("utf-8", "replace")) <= max_bytes:
        assert shown == text.encode("utf-8", "replace").decode()
    else:
        head, _, tail = shown.partition(" [...] ")
        assert text.encode("utf-8", "replace").decode().startswith(head)
        assert text.encode("utf-8", "replace").decode().endswith(tail)


def test_no_number_is_cut_in_two():
    for padding in range(40):
        text = f"{'x' * padding}Score: 10{'y' * 200}Score: 10{'z' * padding}"
        shown = cut(text, max_bytes=60 + padding)
        assert "Score: 1 " not in shown
        assert "] 0" not in shown


def test_half_a_surrogate_pair_becomes_a_question_mark():
    assert cut("a\ud800b", max_bytes=100) == "a?b"


def test_what_is_left_of_the_meta_is_shared_by_all_answers():
    few = reply_bytes([member(row) for row in range(2)], 1)
    many = reply_bytes([member(row) for row in range(8)], 3)
    assert few > 4 * many > 400
    long = reply_bytes([member(row, instruction="x" * 4096) for row in range(8)], 1)
    assert 16 * long + 8 * 4096 < 64 * 1024
