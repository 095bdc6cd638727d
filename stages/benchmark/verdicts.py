"""What a judge's answers say of each member of a group: scores, or why there are none."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from stages.base import UserError
from stages.benchmark.facts import GroupMeta, Member, Replies
from stages.benchmark.protocols import Protocol, Row, Scores

State = Literal["scored", "failed", "unparsed", "unjudged"]
STATES: tuple[State, ...] = ("scored", "failed", "unparsed", "unjudged")


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """One sample, as all reports tell it."""

    id: str
    group: str  # as the protocol calls it
    language: str
    instruction: str
    tags: tuple[str, ...] = ()
    state: State
    reason: str = ""  # why it has no score
    scores: Scores | None = None
    answers: tuple[str, ...] = ()  # the judge's, one a question
    retries: tuple[str, ...] = ()  # to the questions that were asked again; "" = was not
    source_size: tuple[int, int] = (0, 0)  # height, width
    edited_size: tuple[int, int] = (0, 0)
    image: str = ""  # of the edit, below images/

    def row(self) -> Row:
        """Return it as it is aggregated."""
        return Row(
            id=self.id,
            group=self.group,
            language=self.language,
            instruction=self.instruction,
            tags=self.tags,
            scores=self.scores,
        )


def verdicts(
    rules: Protocol, meta: GroupMeta, *, model: str, failed: str = ""
) -> Iterator[Verdict]:
    """Yield a verdict for each member of a group that this run was asked for.

    Args:
        rules: by which the judge was asked.
        meta: what the judge passed on.
        model: whose edits they are; names the images.
        failed: why the whole group was given up.
    """
    silent = Replies(texts=(), retries=(), reason="the judge was not asked")
    replies = meta.replies or (silent,) * len(meta.members)
    for member, said in zip(meta.members, replies, strict=True):
        if member.state != "unasked":  # a limit left it out; it is here to fill its group
            yield _verdict(rules, member, said, model=model, failed=failed)


def _verdict(rules: Protocol, member: Member, said: Replies, *, model: str, failed: str) -> Verdict:
    is_edited = member.state == "edited"
    try:
        group = rules.group_name(member.group)
        state, reason, scores = _decision(rules, member, said, failed)
        image = rules.image_path(member.id, group, member.language, model) if is_edited else ""
    except UserError as error:  # a group that the protocol does not know
        group, image = member.group, ""
        state, reason, scores = "unjudged", str(error), None
        if not is_edited:  # that is why: what the set says of it was not even looked at
            state, reason, scores = _decision(rules, member, said, failed)
    return Verdict(
        id=member.id,
        group=group,
        language=member.language,
        instruction=member.instruction,
        tags=member.tags,
        state=state,
        reason=reason,
        scores=scores,
        answers=said.texts if is_edited else (),
        retries=said.retries if is_edited else (),
        source_size=member.source,
        edited_size=member.edited if is_edited else (0, 0),
        image=image,
    )


def _decision(
    rules: Protocol, member: Member, said: Replies, failed: str
) -> tuple[State, str, Scores | None]:
    """Return state, reason and scores; there are scores only of an edit that was judged."""
    if member.state != "edited":
        return "failed", member.reason or "there is no edited image", None
    if failed or said.reason:
        return "unjudged", failed or said.reason, None
    num_questions = len(rules.questions(member.group, member.language, member.instruction))
    if len(said.texts) != num_questions:
        return "unparsed", f"{len(said.texts)} answers to {num_questions} questions", None
    parsed = [rules.parse(index, text) for index, text in enumerate(_counting(said))]
    scores = rules.combine(parsed)
    if scores is not None:
        return "scored", "", scores
    unread = [index for index, each in enumerate(parsed) if each is None]
    return "unparsed", _why_unread(unread, said), None


def _counting(said: Replies) -> Sequence[str]:
    """Return the answers that count: the second one where a question was asked again."""
    again = said.retries or ("",) * len(said.texts)
    return [second or first for first, second in zip(said.texts, again, strict=False)]


def _why_unread(unread: Sequence[int], said: Replies) -> str:
    numbers = " and ".join(str(index + 1) for index in unread)
    again = ", also when asked again" if any(said.retries) else ""
    return f"no score could be read from answer {numbers}{again}"


def counts(every: Sequence[Verdict]) -> Mapping[State, int]:
    """Return how many samples are in each state."""
    return {state: sum(each.state == state for each in every) for state in STATES}
