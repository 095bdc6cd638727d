"""The sink of every scoring section: groups one by one, all reports at the end."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import ClassVar, Literal

import msgspec

from stages.base import Durable, Item, Sink, UserError
from stages.benchmark.facts import GroupFacts, GroupMeta
from stages.benchmark.markdown import markdown_of
from stages.benchmark.pictures import sync_folder, write_file
from stages.benchmark.previews import Bytes, preview_of_row
from stages.benchmark.protocols import protocol as protocol_of
from stages.benchmark.results import Setting, results_of
from stages.benchmark.verdicts import Verdict, counts, verdicts
from stages.output import is_published, publish

FOLDER = "groups"  # in the job's work_dir
PREVIEWS = "previews.jsonl"
SCORES = "scores.jsonl"
REPORT = "report.md"
TABLES = "tables"


class SaveScores(Sink[Bytes, GroupFacts, GroupMeta]):
    """Writes what a judge said: `results.json`, and all other forms of it beside that.

    They are `report.md`, `scores.jsonl` (a line a sample), `tables/` (for the publishers' tools)
    and `previews.jsonl` (small pictures, for `python -m stages.benchmark.pages`).

    Args:
        protocol: by which the judge was asked: "origin", "gedit" or "imgedit".
        model_name: whose edits they are; names their images, as `SaveEdits` has it.
        model_revision: of its weights.
        judge: what judged them; "" = as it calls itself.
        judge_revision: of its weights.
        resize: the size at which the judge saw an edit: its source's (`source`), its own (`none`),
            or as the protocol has it (`protocol`).
        steps: of an edit.
        true_cfg_scale: likewise.
        settings: whatever else one must know to do it again; is in the reports.

    Raises:
        UserError: there is no such protocol, or no such way to resize.
    """

    library: ClassVar[Literal["numpy", "torch"]] = "numpy"
    facts_type: ClassVar[type] = GroupFacts
    meta_type: ClassVar[type] = GroupMeta
    reads: ClassVar[tuple[str, ...]] = ("sources", "edits", "judged")

    def __init__(
        self,
        *,
        protocol: str = "origin",
        model_name: str = "edits",
        model_revision: str = "",
        judge: str = "",
        judge_revision: str = "",
        resize: str = "protocol",
        steps: int | None = None,
        true_cfg_scale: float | None = None,
        settings: Mapping[str, object] | None = None,
    ) -> None:
        self._rules = protocol_of(protocol)
        if resize not in ("protocol", "source", "none"):
            raise UserError(f"resize {resize!r} is unknown; write protocol, source or none")
        self._setting = Setting(
            model=model_name,
            model_revision=model_revision,
            judge=judge,
            judge_revision=judge_revision,
            resize=self._rules.resize if resize == "protocol" else resize,
            steps=steps,
            true_cfg_scale=true_cfg_scale,
            seed=0,
            group_size=0,
            more=settings or {},
        )
        self._facts: GroupFacts | None = None
        self._durable: list[Durable] = []

    def open(self, facts: GroupFacts) -> None:
        """Make the folders, and see that the results may be written.

        Raises:
            UserError: they may not, or exist already.
        """
        self._facts = facts
        output = Path(facts.job.output)
        _check_output(facts)
        try:
            output.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"{output.parent}: cannot be made: {error.strerror}") from error
        if not os.access(output.parent, os.W_OK):
            raise UserError(f"{output}: may not write in {output.parent}; choose another folder")
        self._folder().mkdir(mode=0o700, parents=True, exist_ok=True)

    def write(
        self, item: Item[GroupMeta], inputs: Mapping[str, Bytes], meta: GroupMeta | None
    ) -> int:
        """Make one group durable; return how many of its samples have a score."""
        said: Sequence[Verdict] = ()
        if meta is not None:
            model = self._setting.model
            said = list(verdicts(self._rules, meta, model=model, failed=item.failed))
        text = json.dumps(
            {
                "lost": item.failed if meta is None else "",
                "judge": "" if meta is None else meta.judge,
                "verdicts": [asdict(each) for each in said],
                "previews": [] if meta is None else _previews(meta, inputs),
            }
        )
        path = self._path(item.index)
        _write(path, text)
        told = counts(said)
        self._durable.append(
            Durable(
                items=(item.index,),
                files=(f"{FOLDER}/{path.name}",),
                counts={
                    "failed edits": told["failed"],
                    "unreadable answers": told["unparsed"],
                    "unjudged edits": told["unjudged"],
                },
            )
        )
        return told["scored"]

    def commit(self) -> list[Durable]:
        """Return the groups that were written since the last call."""
        durable, self._durable = self._durable, []
        return durable

    def finish(self, items: Sequence[int]) -> None:
        """Write all reports of the groups `items`, `results.json` last. Also again.

        Raises:
            UserError: a file appeared under the output's name meanwhile.
            FileNotFoundError: a group is gone.
        """
        facts = self._opened()
        output, work_dir = Path(facts.job.output), Path(facts.job.work_dir)
        _check_output(facts)
        groups = [json.loads(self._path(item).read_bytes()) for item in items]
        every = sorted(
            (msgspec.convert(each, Verdict) for group in groups for each in group["verdicts"]),
            key=lambda each: (each.group, each.id, each.language),
        )
        results = results_of(
            self._rules,
            self._setting_of(facts, groups),
            every,
            num_samples=facts.num_samples,
            lost=[group["lost"] for group in groups if group["lost"]],
        )
        text = json.dumps(results, indent=2, allow_nan=False) + "\n"
        previews = sorted(json.dumps(each) for group in groups for each in group["previews"])
        rows = [each.row() for each in every]
        beside = {
            REPORT: markdown_of(json.loads(text)),
            SCORES: _lines([json.dumps(asdict(each)) for each in every]),
            PREVIEWS: _lines(previews),
        }
        tables = self._rules.table_files(
            rows, model=self._setting.model, judge=self._setting.judge or "judge"
        )
        for name, content in {**beside, **_below(TABLES, tables)}.items():
            _write(output.parent / name, content)
        temporary = output.with_name(f".{output.name}.partial")
        temporary.write_text(text, "utf-8")
        publish(temporary, output, work_dir)

    def _setting_of(self, facts: GroupFacts, groups: Sequence[Mapping[str, str]]) -> Setting:
        by_itself = ", ".join(sorted({group["judge"] for group in groups} - {""}))
        return replace(
            self._setting,
            judge=self._setting.judge or by_itself,
            seed=facts.job.seed,
            group_size=facts.group_size,
        )

    def _opened(self) -> GroupFacts:
        assert self._facts is not None, "open comes first"
        return self._facts

    def _folder(self) -> Path:
        return Path(self._opened().job.work_dir) / FOLDER

    def _path(self, number: int) -> Path:
        return self._folder() / f"{number:06}.json"


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_file(path, text.encode())
    sync_folder(path.parent)


def _check_output(facts: GroupFacts) -> None:
    output = Path(facts.job.output)
    if output.is_dir():
        raise UserError(f"{output}: a folder; name a file, such as {output / 'results.json'}")
    is_ours = is_published(output, Path(facts.job.work_dir))
    if output.exists() and not facts.job.overwrite and not is_ours:
        raise UserError(f"{output}: exists already; use --overwrite or another folder")


def _previews(meta: GroupMeta, inputs: Mapping[str, Bytes]) -> list[Mapping[str, str]]:
    """Return the small pictures of those members that have an edit of their own."""
    return [
        {
            "id": member.id,
            "source": preview_of_row(inputs["sources"][row], member.source),
            "edited": preview_of_row(inputs["edits"][row], member.edited),
        }
        for row, member in enumerate(meta.members)
        if member.state == "edited" and "edits" in inputs
    ]


def _lines(texts: Sequence[str]) -> str:
    return "".join(f"{text}\n" for text in texts)


def _below(folder: str, files: Mapping[str, str]) -> Mapping[str, str]:
    return {f"{folder}/{name}": text for name, text in files.items()}
