"""What every judge does with a group: whom to ask what, what to ask again, whose answer counts.

It knows no model and no network. A judge of your own is a subclass with three methods; README.md
beside this file has a whole one.
"""

from __future__ import annotations

import logging
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Generic, Literal

from stages.base import Item, Stage, TensorSpec, TensorT, UserError
from stages.benchmark.facts import GroupFacts, GroupMeta, Member, Replies
from stages.benchmark.protocols import protocol as protocol_named
from stages.benchmark.protocols.base import Protocol, Question
from stages.judging.replies import MAX_REASON_CHARS, cut, reply_bytes

logger = logging.getLogger(__name__)

Resize = Literal["protocol", "source", "none"]
Which = Literal["source", "edited"]

_SHOWN_AT_SOURCE_SIZE = frozenset({"gedit"})  # protocols whose authors resize the edited image


@dataclass(slots=True, eq=False)
class Picture(Generic[TensorT]):
    """One image that a judge is shown, in as many questions as there are.

    `made` is the judge's own: what it computed of the image, for the next question.
    """

    pixels: TensorT  # [height, width, 3] uint8 RGB
    size: tuple[int, int]  # height, width to show it at
    made: Any = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked(Generic[TensorT]):
    """One question about one row of a group."""

    row: int
    index: int  # of the question in its protocol
    question: Question
    pictures: tuple[Picture[TensorT], ...]  # as `question.images` has them


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back: a text, or why there is none."""

    text: str = ""
    reason: str = ""


Said = Callable[[float], None]  # how much of what was asked is answered, 0 to 1


class Judge(Stage[TensorT, GroupFacts, GroupMeta]):
    """Asks a protocol's questions about each edited image of a group.

    What it says is in `meta`. Writes `judged` [group_size] uint8: 1 for each member that was asked
    and answered.

    Args:
        protocol: by whose rules: origin, gedit or imgedit.
        resize: show the edited image at the source's size (`source`), as it is (`none`), or as the
            protocol's authors do (`protocol`): GEdit's resize it, the others do not.

    Raises:
        UserError: there is no such protocol, or no such way to resize.
    """

    facts_type = GroupFacts
    meta_type = GroupMeta
    reads = ("sources", "edits")
    writes = ("judged",)

    def __init__(self, *, protocol: str, resize: Resize = "protocol") -> None:
        self._protocol = protocol_named(protocol)
        if resize not in ("protocol", "source", "none"):
            raise UserError(f"resize {resize!r} is unknown; write protocol, source or none")
        by_rule = "source" if protocol in _SHOWN_AT_SOURCE_SIZE else "none"
        self.resize = by_rule if resize == "protocol" else resize

    @property
    def protocol(self) -> Protocol:
        """By whose rules it asks."""
        return self._protocol

    @property
    def name(self) -> str:
        """What it is called in reports, unless a run says otherwise."""
        return type(self).__name__

    @property
    def rows_at_once(self) -> int:
        """How many rows one `ask` gets; 0 = only the edited ones, all of them."""
        return 0

    @abstractmethod
    def ask(self, asked: Sequence[Asked[TensorT]], said: Said) -> Sequence[Answer]:
        """Return an answer to each of `asked`, in their order; call `said` as they come."""

    def specs(self, facts: GroupFacts) -> dict[str, TensorSpec]:
        """Return what one group writes; what a judge says travels as meta."""
        return {"judged": TensorSpec((facts.group_size,), "uint8")}

    def run(
        self, inputs: Mapping[str, TensorT], outputs: Mapping[str, TensorT], item: Item[GroupMeta]
    ) -> GroupMeta:
        """Return the meta with replies for each member; only an edited one's are an answer."""
        meta = self._meta(inputs, item)
        judged: Any = outputs["judged"]
        judged[:] = 0
        for row, said in enumerate(meta.replies):
            if said.texts and not said.reason:
                judged[row] = 1
        return meta

    def _meta(self, inputs: Mapping[str, TensorT], item: Item[GroupMeta]) -> GroupMeta:
        members = item.meta.members
        if all(member.copy_of < 0 for member in members):
            logger.debug("not asked item=%d: no edited image in the group", item.index)
            return replace(item.meta, replies=tuple(_unasked(member) for member in members))
        shown = _Shown(inputs, members, self.resize)
        chunks = list(self._chunks(inputs, members))
        replies: dict[int, Replies] = {}
        for number, rows in enumerate(chunks):
            said = part_of(item.progress, number / len(chunks), 1 / len(chunks))
            replies |= self._judge(rows, members, shown, said)
            shown.forget()
        kept = tuple(replies.get(row) or _unasked(member) for row, member in enumerate(members))
        return replace(
            item.meta,
            replies=kept,
            judge=self.name[:MAX_REASON_CHARS],
            judged_at_once=self.rows_at_once,
        )

    def _chunks(
        self, inputs: Mapping[str, TensorT], members: Sequence[Member]
    ) -> Sequence[Sequence[int]]:
        if not self.rows_at_once:
            return [[row for row, member in enumerate(members) if member.state == "edited"]]
        rows = range(len(inputs["sources"]))  # type: ignore[arg-type] # numpy and torch have one
        return [rows[at : at + self.rows_at_once] for at in rows[:: self.rows_at_once]]

    def _judge(
        self, rows: Sequence[int], members: Sequence[Member], shown: _Shown[TensorT], said: Said
    ) -> dict[int, Replies]:
        """Return the replies of those `rows` that are members, edited or asked in vain."""
        asked, refused = self._questions(rows, members, shown)
        counted = [one for one in asked if _is_edited(members, one.row)]
        of_each = len(asked) // max(len({one.row for one in asked}), 1)
        room = reply_bytes(members, of_each)
        answers = self._ask(asked, part_of(said, 0.0, 0.5), room)
        again = [one for one in counted if not self._is_read(one, answers[one.row, one.index])]
        fixed = [_with_format(one, self._protocol.retry_text) for one in again]
        second = self._ask(fixed, part_of(said, 0.5, 0.5), room) if fixed else {}
        said(1.0)
        replies = {row: _refused(reason) for row, reason in refused.items()}
        for row in sorted({one.row for one in counted}):
            replies[row] = _replies_of(row, answers, second)
        return replies

    def _ask(
        self, asked: Sequence[Asked[TensorT]], said: Said, room: int
    ) -> dict[tuple[int, int], Answer]:
        answers = self.ask(asked, said) if asked else ()
        return {
            (one.row, one.index): Answer(
                cut(answer.text, max_bytes=room), answer.reason[:MAX_REASON_CHARS]
            )
            for one, answer in zip(asked, answers, strict=True)
        }

    def _questions(
        self, rows: Sequence[int], members: Sequence[Member], shown: _Shown[TensorT]
    ) -> tuple[list[Asked[TensorT]], dict[int, str]]:
        """Return what to ask, and the rows of which the protocol says why it cannot be asked."""
        asked: list[Asked[TensorT]] = []
        refused: dict[int, str] = {}
        for row in rows:
            member = shown.member(row)
            try:
                questions = self._protocol.questions(
                    member.group, member.language, member.instruction
                )
            except UserError as error:
                if _is_edited(members, row):
                    refused[row] = str(error)
                continue
            for index, question in enumerate(questions):
                pictures = tuple(shown.picture(row, which) for which in question.images)
                asked.append(Asked(row=row, index=index, question=question, pictures=pictures))
        return asked, refused

    def _is_read(self, asked: Asked[TensorT], answer: Answer) -> bool:
        """Whether asking again is of no use: it was understood, or there was nobody to answer."""
        if answer.reason:
            return True
        return self._protocol.parse(asked.index, answer.text) is not None


class _Shown(Generic[TensorT]):
    """The pictures of a group's rows, each made once."""

    def __init__(
        self, inputs: Mapping[str, TensorT], members: Sequence[Member], resize: str
    ) -> None:
        self._rows = {"source": inputs["sources"], "edited": inputs["edits"]}
        self._members = members
        self._resize = resize
        self._pictures: dict[tuple[int, Which], Picture[TensorT]] = {}

    def member(self, row: int) -> Member:
        """Return the member whose pixels stand in `row`; rows behind the last hold a copy, too."""
        own = self._members[row] if row < len(self._members) else self._members[0]
        return self._members[own.copy_of]

    def picture(self, row: int, which: Which) -> Picture[TensorT]:
        """Return the picture in `row`."""
        if (row, which) not in self._pictures:
            member = self.member(row)
            height, width = member.source if which == "source" else member.edited
            flat: Any = self._rows[which]
            pixels = flat[row][: height * width * 3].reshape(height, width, 3)
            size = member.source if self._resize == "source" else (height, width)
            self._pictures[row, which] = Picture(pixels, size)
        return self._pictures[row, which]

    def forget(self) -> None:
        """Let go of the pictures, and of what was made of them."""
        self._pictures.clear()


def part_of(said: Said, start: float, share: float) -> Said:
    """Return what says 0 to 1 of a part that begins at `start` and is `share` of the whole."""
    return lambda fraction: said(start + share * fraction)


def _is_edited(members: Sequence[Member], row: int) -> bool:
    return row < len(members) and members[row].state == "edited"


def _with_format(asked: Asked[TensorT], retry_text: str) -> Asked[TensorT]:
    question = replace(asked.question, text=f"{asked.question.text}\n\n{retry_text}")
    return replace(asked, question=question)


def _unasked(member: Member) -> Replies:
    if member.state == "failed":
        return _refused(f"not asked: the edit failed: {member.reason}")
    return _refused("not asked: there is no edited image")


def _refused(reason: str) -> Replies:
    return Replies(texts=(), retries=(), reason=reason[:MAX_REASON_CHARS])


def _replies_of(
    row: int, answers: Mapping[tuple[int, int], Answer], second: Mapping[tuple[int, int], Answer]
) -> Replies:
    keys = [key for key in answers if key[0] == row]
    retried = [second.get(key, Answer()) for key in keys]
    reasons = [one.reason for one in (*(answers[key] for key in keys), *retried) if one.reason]
    return Replies(
        texts=tuple(answers[key].text for key in keys),
        retries=tuple(one.text for one in retried),
        reason=reasons[0] if reasons else "",
    )
