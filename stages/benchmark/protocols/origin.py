"""Five categories, one score from 0 to 10 each sample, asked in the sample's language."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any, ClassVar

from stages.base import UserError
from stages.benchmark.protocols.base import Protocol, Question, Row, Scores, Table, file_name
from stages.benchmark.protocols.reading import Scale, read_score
from stages.benchmark.protocols.tables import by_language, csv_text, is_chinese, table

_TEXTS: dict[str, Any] = tomllib.loads(Path(__file__).with_suffix(".toml").read_text("utf-8"))
_MAX_TOKENS = 256


class Origin(Protocol):
    """Each category has a rubric of its own; the judge sees the original, then the edit.

    The overall mean is over samples.
    """

    name: ClassVar[str] = "origin"
    version: ClassVar[str] = "1"
    metrics: ClassVar[tuple[str, ...]] = ("score",)
    headline: ClassVar[str] = "score"
    low: ClassVar[float] = 0.0
    high: ClassVar[float] = 10.0
    groups: ClassVar[tuple[str, ...]] = tuple(_TEXTS["names"])
    retry_text = (
        "Your last answer could not be read. Answer with one line and nothing else, a number from "
        "0 to 10 in this form:\nScore: 6.5"
    )

    def group_name(self, group: str) -> str:
        """Return the category's English name: "cultural" for "cultural/social".

        Raises:
            UserError: it is none of the five.
        """
        wanted = group.strip().casefold()
        for name, others in _TEXTS["names"].items():
            if wanted == name or wanted in others:
                return str(name)
        known = [name for name, others in _TEXTS["names"].items() for name in (name, *others)]
        close = get_close_matches(wanted, known, 1)
        hint = f"did you mean {close[0]}?" if close else f"known: {', '.join(self.groups)}"
        raise UserError(f"{group}: no category of the protocol {self.name}; {hint}")

    def questions(self, group: str, language: str, instruction: str) -> tuple[Question, ...]:
        """Return the one question of this category, in Chinese or else in English."""
        texts = _TEXTS["zh" if is_chinese(language) else "en"]
        rubric = texts["rubrics"][self.group_name(group)].strip()
        asked = texts["task"].strip().replace("{rubric}", rubric)
        return (
            Question(
                system=texts["system"].strip(),
                text=asked.replace("{instruction}", instruction),
                images=("source", "edited"),
                max_tokens=_MAX_TOKENS,
            ),
        )

    def parse(self, question_index: int, reply: str) -> Scores | None:
        """Return the score that the reply states."""
        score = read_score(reply, Scale(self.low, self.high))
        return None if score is None else {"score": score}

    def combine(self, parsed: Sequence[Scores | None]) -> Scores | None:
        """Return the one score."""
        (only,) = parsed
        return only

    def aggregate(self, rows: Sequence[Row]) -> tuple[Table, ...]:
        """Return a table of all samples, and one a language if there are several."""
        tables = [table("all", rows, self.metrics, overall="samples", order=self.groups)]
        languages = by_language(rows, lambda name: "zh" if is_chinese(name) else name)
        if len(languages) > 1:
            tables += [
                table(name, some, self.metrics, overall="samples", order=self.groups)
                for name, some in languages.items()
            ]
        return tuple(tables)

    def image_path(self, sample_id: str, group: str, language: str, model: str) -> str:
        """Return "MODEL/CATEGORY/ID.png"."""
        return f"{file_name(model)}/{self.group_name(group)}/{file_name(sample_id)}.png"

    def table_files(self, rows: Sequence[Row], *, model: str, judge: str) -> Mapping[str, str]:
        """Return one CSV of all samples; a cell is empty where there is no score."""
        lines = [
            (row.id, row.group, row.language, row.scores["score"] if row.scores else "")
            for row in rows
        ]
        return {"scores.csv": csv_text(("id", "category", "language", "score"), lines)}

    def prompts(self) -> Mapping[str, object]:
        """Return rubrics, tasks and systems of both languages."""
        return {language: _TEXTS[language] for language in ("en", "zh")}
