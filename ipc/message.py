"""What every message is: a small frozen record with its sender. See `ipc/messages.py`."""

from __future__ import annotations

import msgspec

MAX_META_BYTES = 64 * 1024  # small facts only; what is larger is a tensor
MAX_MESSAGE_BYTES = 4 * 1024 * 1024  # a hostile or broken peer cannot make us take more


class Message(
    msgspec.Struct,
    frozen=True,
    kw_only=True,
    tag=True,
    tag_field="type",
    forbid_unknown_fields=True,
):
    """Base of every message; `tag=True` writes the class name on the wire."""

    sender: str  # "denoise/0"
    incarnation: int  # of the sender; +1 at every restart
