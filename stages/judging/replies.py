"""What is kept of a judge's answers: whole where it fits, else beginning and end, never a guess."""

from __future__ import annotations

from collections.abc import Sequence

from stages.benchmark.facts import Member

MAX_REPLY_CHARS = 2000
MAX_REASON_CHARS = 300  # of why a member could not be asked
_MAX_META_BYTES = 60 * 1024  # of the 64 KiB that travel with an item, 4 for names and lengths
_MEMBER_BYTES = 200  # of a member, beside its texts
_MIN_REPLY_BYTES = 64
_GAP = " [...] "
_NUMBER = "0123456789.,/"


def reply_bytes(members: Sequence[Member], num_questions: int) -> int:
    """Return how many bytes of each answer travel on, so that the answers to all of them fit."""
    texts = 2 * num_questions * len(members)  # an answer, and one to the question asked again
    taken = sum(_MEMBER_BYTES + MAX_REASON_CHARS + _size_of(member) for member in members)
    return max(_MIN_REPLY_BYTES, (_MAX_META_BYTES - taken) // max(texts, 1))


def _size_of(member: Member) -> int:
    said = (member.id, member.group, member.language, member.instruction, member.reason)
    return sum(len(text.encode("utf-8", "replace")) for text in (*said, *member.tags))


def cut(text: str, *, max_bytes: int, max_chars: int = MAX_REPLY_CHARS) -> str:
    """Return `text` if it is that short, else its beginning and end; no number is cut in two."""
    text = text.encode("utf-8", "replace").decode()  # half a surrogate pair cannot travel
    keep = max_chars
    shown = text
    while len(shown) > max_chars or len(shown.encode()) > max_bytes:
        half = max((keep - len(_GAP)) // 2, 1)
        shown = f"{text[:half].rstrip(_NUMBER)}{_GAP}{text[-half:].lstrip(_NUMBER)}"
        keep = keep * 7 // 8
    return shown
