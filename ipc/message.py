"""What every message is: a small frozen record with its sender. See `ipc/messages.py`."""

from __future__ import annotations

from typing import Annotated

import msgspec

MAX_META_BYTES = 64 * 1024  # small facts only; what is larger is a tensor
MAX_MESSAGE_BYTES = 4 * 1024 * 1024  # a hostile or broken peer cannot make us take more

# What numbers on the wire may be; what is outside is no message.
Index = Annotated[int, msgspec.Meta(ge=0, lt=2**31)]  # of an item, a slot, a job
IndexOrNone = Annotated[int, msgspec.Meta(ge=-1, lt=2**31)]  # -1: none
Size = Annotated[int, msgspec.Meta(ge=0, lt=2**62)]  # in bytes, or a count of anything
Dim = Annotated[int, msgspec.Meta(ge=0, lt=2**40)]  # of a tensor
Shape = Annotated[tuple[Dim, ...], msgspec.Meta(max_length=16)]
Span = Annotated[float, msgspec.Meta(ge=0, le=1e12)]  # in seconds, and never NaN
Name = Annotated[str, msgspec.Meta(max_length=1000)]  # of a worker, a stage, a pool, a dtype
MetaBytes = Annotated[bytes, msgspec.Meta(max_length=MAX_META_BYTES)]


class Message(
    msgspec.Struct,
    frozen=True,
    kw_only=True,
    tag=True,
    tag_field="type",
    forbid_unknown_fields=True,
):
    """Base of every message; `tag=True` writes the class name on the wire."""

    sender: Name  # "denoise/0"
    incarnation: Index  # of the sender; +1 at every restart
