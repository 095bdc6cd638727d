"""What the doctor asks of a process on a GPU, and what that answers: one line of JSON each.

The items that such processes send each other meanwhile are messages of a run, `ipc/messages.py`.
"""

from __future__ import annotations

import msgspec

from ipc.records import PoolAddress, Record


class OpenGpu(Record, frozen=True, tag=True):
    """Open the GPU and make a pool on it; answered by `GpuOpened`."""

    num_slots: int
    slot_bytes: int


class OpenLink(Record, frozen=True, tag=True):
    """Open this pool, which lies on a GPU or in host memory; answered by `Done`."""

    pool: PoolAddress
    writable: bool  # for its owner


class CloseLink(Record, frozen=True, tag=True):
    """Close the pool that was opened last, if any; answered by `Done`."""


class SendItems(Record, frozen=True, tag=True):
    """Write items into the pool, one at a time, for a reader; answered by `ItemsSent`."""

    reader: str  # endpoint of its inbox
    nbytes: int  # of an item
    count: int
    seed: int  # of its bytes


class TakeItems(Record, frozen=True, tag=True):
    """Copy those items out of the pool, and see that they are right; answered by `Done`."""

    owner: str  # endpoint of its inbox
    nbytes: int
    count: int
    seed: int


class CopySlots(Record, frozen=True, tag=True):
    """Copy whole slots, queued at once: into the pool if it is writable, otherwise out of it.

    Answered by `SlotsCopied`.
    """

    count: int


class GpuOpened(Record, frozen=True, tag=True):
    """The GPU is open, and this is the pool."""

    pool: PoolAddress


class ItemsSent(Record, frozen=True, tag=True):
    """The items are sent, and what they were copied from is free again."""

    round_trips_ns: tuple[int, ...]


class SlotsCopied(Record, frozen=True, tag=True):
    """The slots are copied: CLOCK_MONOTONIC, which is one clock for all processes of a host."""

    began_ns: int
    ended_ns: int


class Done(Record, frozen=True, tag=True):
    """It is done."""


class Failed(Record, frozen=True, tag=True):
    """It could not be done."""

    error: str
    is_lost: bool  # the process is of no use any more


Command = OpenGpu | OpenLink | CloseLink | SendItems | TakeItems | CopySlots
Answer = GpuOpened | ItemsSent | SlotsCopied | Done | Failed

_encoder = msgspec.json.Encoder()
_commands: msgspec.json.Decoder[Command] = msgspec.json.Decoder(Command)
_answers: msgspec.json.Decoder[Answer] = msgspec.json.Decoder(Answer)


def line_of(message: Command | Answer) -> bytes:
    """Return the message as one line."""
    return _encoder.encode(message) + b"\n"


def command_of(line: bytes) -> Command:
    """Return the command in a line."""
    return _commands.decode(line)


def answer_of(line: bytes) -> Answer:
    """Return the answer in a line."""
    return _answers.decode(line)
