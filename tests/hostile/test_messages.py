"""Whatever comes in a message: refused in a line, and no memory touched that is none of its own."""

import pytest

from ipc.errors import ProtocolError
from ipc.messages import decode
from tests.hostile import cases
from tests.hostile.corpus_files import corpus
from tests.hostile.local_job import ready_message
from tests.hostile.messages import Surface

KEPT = {
    "field_of_two_lines": r"bytes: Object contains unknown field `a\\nba.*\.\.\.$",
    "handle_beyond_its_pool": "tensor 'x' lies in slot 3 of 3",
    "handle_beyond_its_slot": "tensor 'x' is not as planned: ",
    "item_before_the_first": r"Expected `int` >= 0 - at `\$\.item`",
    "item_behind_the_last": "item 8.0, which is not one of 8",
    "no_utf8": "'utf-8' codec can't decode byte 0xff",
    "stage_of_another_worker": "goes to stage 'write', which is not here",
}


@pytest.fixture
def surface(tmp_path):
    made = Surface(tmp_path)
    yield made
    made.close()


@cases.seeds(short=3000)
def test_every_message_is_understood_or_refused(tmp_path, first, number):
    assert cases.defects_of("messages", tmp_path, first, number) == []


@pytest.mark.parametrize("name", KEPT)
def test_what_once_was_too_much_is_refused(name, surface):
    part = corpus("messages")[name]
    surface.judge(part)
    with pytest.raises(ProtocolError, match=KEPT[name]):
        surface.take(decode(part))


def test_what_is_right_is_taken(surface):
    """Else all that is refused might be refused for the wrong reason."""
    assert surface.hear([decode(corpus("messages")["whole"])]) == ["read/0", "write/0"]


def test_an_item_that_comes_twice_is_refused(surface):
    with pytest.raises(ProtocolError, match=r"item 0\.0 comes twice to add"):
        surface.take(ready_message(), ready_message())
