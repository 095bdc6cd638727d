"""ImgEdit's way: three scores from 1 to 5, the second and third capped by the first."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from stages.benchmark.protocols.base import Protocol, Question, Row, Scores, Table, file_name
from stages.benchmark.protocols.reading import Scale, read_named
from stages.benchmark.protocols.tables import table

_TEXTS: dict[str, Any] = tomllib.loads(Path(__file__).with_suffix(".toml").read_text("utf-8"))
_MAX_TOKENS = 256
_PARTS = ("instruction", "appearance", "integrity")


class ImgEdit(Protocol):
    """One question; a sample's score is the mean of three, averaged by type, then over types."""

    name: ClassVar[str] = "imgedit"
    version: ClassVar[str] = "1"
    metrics: ClassVar[tuple[str, ...]] = (*_PARTS, "score")
    headline: ClassVar[str] = "score"
    low: ClassVar[float] = 1.0
    high: ClassVar[float] = 5.0
    retry_text = (
        "Your last answer could not be read. Answer with three lines and nothing else, whole "
        "numbers from 1 to 5 in this form:\nInstruction: 4\nAppearance: 3\nIntegrity: 4"
    )

    def questions(self, group: str, language: str, instruction: str) -> tuple[Question, ...]:
        """Return the one question, with a sentence on this type of edit where there is one."""
        aim = _TEXTS["aims"].get(group.strip().casefold(), "")
        asked = _TEXTS["task"].strip().replace("{aim}", aim)
        return (
            Question(
                system=_TEXTS["system"].strip(),
                text=asked.replace("{instruction}", instruction),
                images=("source", "edited"),
                max_tokens=_MAX_TOKENS,
            ),
        )

    def parse(self, question_index: int, reply: str) -> Scores | None:
        """Return the three scores."""
        return read_named(reply, _PARTS, Scale(self.low, self.high))

    def combine(self, parsed: Sequence[Scores | None]) -> Scores | None:
        """Cap the second and third by the first, and add the mean of the three."""
        (given,) = parsed
        if given is None:
            return None
        capped = {name: min(given[name], given[_PARTS[0]]) for name in _PARTS}
        return {**capped, "score": sum(capped.values()) / len(capped)}

    def aggregate(self, rows: Sequence[Row]) -> tuple[Table, ...]:
        """Return one table by type of edit."""
        return (table("all", rows, self.metrics, overall="groups"),)

    def image_path(self, sample_id: str, group: str, language: str, model: str) -> str:
        """Return "MODEL/KEY.png"; the publishers' tools are given the folder."""
        return f"{file_name(model)}/{file_name(sample_id)}.png"

    def table_files(self, rows: Sequence[Row], *, model: str, judge: str) -> Mapping[str, str]:
        """Return what the publishers' three steps make: answers, means by key, means by type."""
        scored = {row.id: row.scores for row in rows if row.scores}
        answers = {
            key: "\n".join(f"{name.capitalize()}: {scores[name]:g}" for name in _PARTS)
            for key, scores in scored.items()
        }
        (only,) = self.aggregate(rows)
        by_type = {group: of["score"].mean for group, of in only.groups.items()}
        folder = file_name(model)
        return {
            f"{folder}/result.json": _json(answers),
            f"{folder}/average_score.json": _json(
                {key: scores["score"] for key, scores in scored.items()}
            ),
            f"{folder}/typescore.json": _json(by_type),
        }

    def prompts(self) -> Mapping[str, object]:
        """Return system, question and the sentences on types."""
        return dict(_TEXTS)


def _json(value: object) -> str:
    return json.dumps(value, indent=2) + "\n"
