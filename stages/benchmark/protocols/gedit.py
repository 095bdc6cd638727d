"""GEdit-Bench's way: SC and PQ from 0 to 10, each its least part, and O = sqrt(SC * PQ)."""

from __future__ import annotations

import math
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

from stages.benchmark.protocols.base import Protocol, Question, Row, Scores, Table, file_name
from stages.benchmark.protocols.reading import Scale, read_scores
from stages.benchmark.protocols.tables import by_language, csv_text, is_chinese, table

INTERSECTION = "intersection"  # the tag of a sample that has Intersection_exist

_TEXTS: dict[str, Any] = tomllib.loads(Path(__file__).with_suffix(".toml").read_text("utf-8"))
_MAX_TOKENS = 256
_PARTS = 2  # scores in each answer
_METRIC_OF = ("SC", "PQ")  # by question
_GROUPS = (
    "background_change",
    "color_alter",
    "material_alter",
    "motion_change",
    "ps_human",
    "style_change",
    "subject-add",
    "subject-remove",
    "subject-replace",
    "text_change",
    "tone_transfer",
)
_HEADER = (
    "key",
    "source_image",
    "edited_image",
    "instruction",
    "sementics_score",  # sic: the publishers' tools read it by this name
    "quality_score",
    "intersection_exist",
    "instruction_language",
)


class GEdit(Protocol):
    """Two conversations a sample: what was done, with both pictures; how it looks, with the edit.

    O is made for each sample, averaged within a group, then over groups; languages apart, and again
    for the samples of the intersection alone.
    """

    name: ClassVar[str] = "gedit"
    version: ClassVar[str] = "1"
    metrics: ClassVar[tuple[str, ...]] = ("SC", "PQ", "O")
    headline: ClassVar[str] = "O"
    low: ClassVar[float] = 0.0
    high: ClassVar[float] = 10.0
    resize: ClassVar[Literal["source", "none"]] = "source"
    retry_text = (
        "Your last answer could not be read. Answer with one JSON object and nothing else, two "
        'numbers from 0 to 10 in this form:\n{"score": [6, 7]}'
    )

    def questions(self, group: str, language: str, instruction: str) -> tuple[Question, ...]:
        """Return the questions for SC and for PQ; they are asked in English for every language."""
        system = _TEXTS["system"].strip()
        return (
            Question(
                system=system,
                text=_TEXTS["meaning"].strip().replace("{instruction}", instruction),
                images=("source", "edited"),
                max_tokens=_MAX_TOKENS,
            ),
            Question(
                system=system,
                text=_TEXTS["looks"].strip(),
                images=("edited",),
                max_tokens=_MAX_TOKENS,
            ),
        )

    def parse(self, question_index: int, reply: str) -> Scores | None:
        """Return SC or PQ, the least of the two scores of that answer."""
        parts = read_scores(reply, _PARTS, Scale(self.low, self.high))
        return None if parts is None else {_METRIC_OF[question_index]: min(parts)}

    def combine(self, parsed: Sequence[Scores | None]) -> Scores | None:
        """Return SC, PQ and O."""
        meaning, looks = parsed
        if meaning is None or looks is None:
            return None
        return {**meaning, **looks, "O": math.sqrt(meaning["SC"] * looks["PQ"])}

    def aggregate(self, rows: Sequence[Row]) -> tuple[Table, ...]:
        """Return a table for each language, English first, and each one's intersection."""
        tables = []
        for language, some in by_language(rows, _language).items():
            both = [row for row in some if INTERSECTION in row.tags]
            for name, members in ((language, some), (f"{language}, intersection", both)):
                if members:
                    tables.append(
                        table(name, members, self.metrics, overall="groups", order=_GROUPS)
                    )
        return tuple(tables)

    def image_path(self, sample_id: str, group: str, language: str, model: str) -> str:
        """Return "MODEL/fullset/TASK/LANGUAGE/KEY.png"."""
        folder = f"{file_name(model)}/fullset/{file_name(group)}/{_language(language)}"
        return f"{folder}/{file_name(sample_id)}.png"

    def table_files(self, rows: Sequence[Row], *, model: str, judge: str) -> Mapping[str, str]:
        """Return a CSV a group and language, as the publishers' statistics read them.

        They take every line for a score, so a sample without one has no line.
        """
        files = {}
        for language, some in by_language(rows, _language).items():
            for group in sorted({row.group for row in some}):
                lines = [
                    self._line(row, model) for row in some if row.group == group and row.scores
                ]
                name = f"{file_name(model)}_{file_name(group)}_{language}_vie_score.csv"
                path = f"{file_name(model)}/{file_name(judge)}/{name}"
                files[path] = csv_text(_HEADER, lines)
        return files

    def _line(self, row: Row, model: str) -> tuple[object, ...]:
        assert row.scores is not None, "only scored samples have a line"
        edited = self.image_path(row.id, row.group, row.language, model)
        return (
            row.id,
            f"{edited.removesuffix('.png')}_SRCIMG.png",
            edited,
            row.instruction,
            row.scores["SC"],
            row.scores["PQ"],
            INTERSECTION in row.tags,
            _language(row.language),
        )

    def prompts(self) -> Mapping[str, object]:
        """Return system and both questions."""
        return dict(_TEXTS)


def _language(language: str) -> str:
    """Return a language as the publishers call it, "en" or "cn"; another one as a file name."""
    return "cn" if is_chinese(language) else file_name(language.casefold() or "en")
