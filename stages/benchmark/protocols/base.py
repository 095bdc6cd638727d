"""What a benchmark's protocol is: what the judge is asked, and what becomes of its answers.

A protocol is pure. It sees no image, no model and no process: the judge asks its questions, the
sink of the scores takes the answers apart with it. What it can not read for sure is None, and stays
None: no rule here ever makes up a number.
"""

from __future__ import annotations

import hashlib
import json
import re
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

from stages.benchmark.statistics import Summary

Scores = Mapping[str, float]

MAX_NAME_BYTES = 120  # of one part of a path
_PLAIN = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+-]*", re.ASCII)
_ODD = re.compile(r"[^A-Za-z0-9_.+-]+", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """One thing that the judge is asked of one edit, in one conversation of its own."""

    system: str  # "" = none
    text: str
    images: tuple[Literal["source", "edited"], ...]  # in the order in which they are shown
    max_tokens: int  # of the answer


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One sample, as it is aggregated."""

    id: str
    group: str
    language: str = "en"
    instruction: str = ""
    tags: tuple[str, ...] = ()  # of its data set: "intersection"
    scores: Scores | None = None  # None: failed, not asked, or not readable


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """One way to look at the scores of all samples, or of some."""

    name: str  # "all", "en", "en, intersection"
    overall_rule: str  # how `overall`'s mean is made: "mean over samples"
    groups: Mapping[str, Mapping[str, Summary]]  # group -> metric -> what is to say of it
    overall: Mapping[str, Summary]  # metric -> likewise, over all groups
    samples: tuple[str, ...]  # ids of those that are in it


class Protocol(ABC):
    """How one benchmark is judged. All of it is fixed: what differs is another version."""

    name: ClassVar[str]
    version: ClassVar[str]  # of questions, parser and rules: goes up when a score may change
    metrics: ClassVar[tuple[str, ...]]  # names of what `combine` returns: ("SC", "PQ", "O")
    headline: ClassVar[str]  # the one of them that is named first
    low: ClassVar[float]  # least score
    high: ClassVar[float]  # most
    groups: ClassVar[tuple[str, ...]] = ()  # it knows no others; () = any
    resize: ClassVar[Literal["source", "none"]] = (
        "none"  # an edit, to its source's size, for the judge
    )
    retry_text: str  # the fixed format; follows a question whose answer could not be read

    @abstractmethod
    def questions(self, group: str, language: str, instruction: str) -> tuple[Question, ...]:
        """Return what to ask of one edit, always the same number of questions.

        Raises:
            UserError: it knows no such group.
        """

    @abstractmethod
    def parse(self, question_index: int, reply: str) -> Scores | None:
        """Return the scores in an answer, all within range; None if there is any doubt."""

    @abstractmethod
    def combine(self, parsed: Sequence[Scores | None]) -> Scores | None:
        """Return a sample's scores, a value for each of `metrics`; None if any part is None."""

    @abstractmethod
    def aggregate(self, rows: Sequence[Row]) -> tuple[Table, ...]:
        """Return the tables of all samples; the first is the one to quote."""

    @abstractmethod
    def image_path(self, sample_id: str, group: str, language: str, model: str) -> str:
        """Return where an edited image lies, below images/, as the publishers' tools expect it.

        It is relative and stays below that folder, whatever the names say.
        """

    @abstractmethod
    def table_files(self, rows: Sequence[Row], *, model: str, judge: str) -> Mapping[str, str]:
        """Return files for the publishers' tools: path below tables/ -> text."""

    @abstractmethod
    def prompts(self) -> Mapping[str, object]:
        """Return every text that the judge may be told, as JSON can hold it."""

    def group_name(self, group: str) -> str:
        """Return the name under which a group is reported; here, and mostly, the one it has.

        Raises:
            UserError: there is no such group.
        """
        return group

    @property
    def prompts_sha256(self) -> str:
        """A hash of everything that the judge may be told."""
        told = {"prompts": self.prompts(), "retry": self.retry_text}
        return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()


def file_name(name: str) -> str:
    """Return `name` as one part of a path: itself if it is plain, else altered and told apart.

    "cat-1" stays; "../cat" becomes "cat-" and eight hexadecimal digits of its hash.
    """
    if _PLAIN.fullmatch(name) and len(name) <= MAX_NAME_BYTES:
        return name
    digest = hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:8]
    plain = _ODD.sub("-", name).strip("-.")[: MAX_NAME_BYTES - 9]
    return f"{plain}-{digest}" if plain else digest
