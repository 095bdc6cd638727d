"""Damage to bytes, drawn from a seeded generator: the same seed makes the same damage."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random

# What sizes, offsets and counts become: the ends of every width, and what overflows when doubled.
EXTREMES = (
    0,
    1,
    -1,
    2**7,
    2**15,
    2**16 - 1,
    2**31 - 1,
    2**31,
    2**32 - 1,
    2**53,
    2**63 - 1,
    2**64 - 1,
)
WIDTHS = (1, 2, 4, 8)
MAX_DAMAGES = 5
MAX_BLOCK_BYTES = 4096  # of what is cut out, repeated or put in at once

Damage = Callable[[Random, bytearray, Sequence[bytes]], None]


def damaged(rng: Random, data: bytes, others: Sequence[bytes] = ()) -> bytes:
    """Return `data` damaged in one place or a few; pieces of `others` may come into it."""
    result = bytearray(data)
    for _ in range(rng.randint(1, MAX_DAMAGES)):
        rng.choice(DAMAGES)(rng, result, others or (data,))
    return bytes(result)


def extreme(rng: Random) -> int:
    """Return a number that sizes are seldom tried with."""
    return rng.choice(EXTREMES) + rng.choice((0, 0, 0, 1, -1))


def _place(rng: Random, data: bytearray) -> int:
    """Return where to strike: near the start as often as anywhere, as headers lie there."""
    end = len(data) if rng.random() < 0.6 else min(len(data), 256)
    return rng.randrange(end) if end else 0


def _block(rng: Random, data: bytes | bytearray) -> slice:
    start = rng.randrange(len(data)) if data else 0
    return slice(start, start + min(MAX_BLOCK_BYTES, 1 + int(rng.expovariate(1 / 40))))


def _flip_bit(rng: Random, data: bytearray, _others: Sequence[bytes]) -> None:
    if data:
        data[_place(rng, data)] ^= 1 << rng.randrange(8)


def _set_byte(rng: Random, data: bytearray, _others: Sequence[bytes]) -> None:
    if data:
        data[_place(rng, data)] = rng.choice((0, 1, 0x7F, 0x80, 0xFF, rng.randrange(256)))


def _set_number(rng: Random, data: bytearray, _others: Sequence[bytes]) -> None:
    width, order = rng.choice(WIDTHS), rng.choice(("big", "little"))
    at = _place(rng, data)
    data[at : at + width] = (extreme(rng) % 256**width).to_bytes(width, order)


def _truncate(rng: Random, data: bytearray, _others: Sequence[bytes]) -> None:
    del data[_place(rng, data) :]


def _cut_out(rng: Random, data: bytearray, _others: Sequence[bytes]) -> None:
    del data[_block(rng, data)]


def _repeat(rng: Random, data: bytearray, _others: Sequence[bytes]) -> None:
    block = _block(rng, data)
    data[block] = bytes(data[block]) * rng.choice((2, 2, 3, 17))


def _overwrite(rng: Random, data: bytearray, _others: Sequence[bytes]) -> None:
    block = _block(rng, data)
    size = len(data[block])
    data[block] = rng.randbytes(size) if rng.random() < 0.5 else bytes(size)


def _insert(rng: Random, data: bytearray, others: Sequence[bytes]) -> None:
    other = rng.choice(others)
    piece = other[_block(rng, other)] if rng.random() < 0.7 else rng.randbytes(rng.randint(1, 32))
    at = _place(rng, data)
    data[at:at] = piece


def _splice(rng: Random, data: bytearray, others: Sequence[bytes]) -> None:
    other = rng.choice(others)
    cut = rng.random()
    data[int(cut * len(data)) :] = other[int(cut * len(other)) :]


DAMAGES: tuple[Damage, ...] = (
    *(_flip_bit, _set_byte, _set_number) * 3,
    _truncate,
    _cut_out,
    _repeat,
    _overwrite,
    _insert,
    _splice,
)
