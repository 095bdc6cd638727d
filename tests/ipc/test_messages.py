import typing

import msgspec
import pytest

from ipc import messages
from ipc.errors import ProtocolError
from ipc.messages import AnyMessage, decode, encode
from ipc.records import TensorHandle, TensorPlace

KINDS = typing.get_args(AnyMessage)
HANDLE = TensorHandle(
    pool="denoise/0.1@host#2", slot=3, offset=256, shape=(2, 3, 64, 96), dtype="bfloat16"
)
SAMPLES = {
    str: "denoise/0",
    int: 7,
    float: 0.25,
    bytes: b"\x80",
    bool: True,
    dict[str, TensorHandle]: {"tokens": HANDLE},
    dict[str, tuple[TensorPlace, ...]]: {
        "denoise/0.1#2@cuda": (
            TensorPlace(name="y", offset=0, shape=(4,), dtype="float32", readers=("write",)),
        )
    },
    dict[str, str]: {"torch": "2.13.0"},
    dict[str, int]: {"frame pairs": 8},
}


def sample(kind):
    """Build a value of `kind` in which nothing is left empty."""
    if kind in SAMPLES:
        return SAMPLES[kind]
    if typing.get_origin(kind) is tuple:
        return tuple(sample(each) for each in typing.get_args(kind) if each is not ...)
    fields = typing.get_type_hints(kind)
    return kind(
        **{field.name: sample(fields[field.name]) for field in msgspec.structs.fields(kind)}
    )


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_every_message_survives_the_wire(kind):
    message = sample(kind)
    assert decode(encode(message)) == message


def test_the_union_has_every_message_of_the_file():
    defined = {
        value
        for value in vars(messages).values()
        if isinstance(value, type) and issubclass(value, messages.Message)
    }
    assert set(KINDS) == defined - {messages.Message}
    assert len(KINDS) == 40


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_every_message_says_its_direction_and_its_sender(kind):
    assert "->" in kind.__doc__.splitlines()[0]
    assert {"sender", "incarnation"} <= set(kind.__struct_fields__)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_messages_cannot_be_changed(kind):
    with pytest.raises(AttributeError, match="immutable"):
        sample(kind).sender = "somebody else"


@pytest.mark.parametrize(
    ("part", "complaint"),
    [
        (b"", "Input data was truncated"),
        (b"\x81\xa4type\xa4Halt", "Invalid value 'Halt'"),
        (b"\x82\xa4type\xa4Stop\xa3now\xc3", "unknown field `now`"),
        (b"\x81\xa4type\xa4Stop", "missing required field `sender`"),
        (b"\xc1", "invalid opcode"),
        (encode(sample(messages.Stop)) + b"x", "trailing characters"),
    ],
)
def test_a_bad_message_says_what_is_wrong_with_it(part, complaint):
    with pytest.raises(ProtocolError, match=complaint):
        decode(part)
