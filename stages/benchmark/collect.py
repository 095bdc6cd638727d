"""The source of judge groups: edits that are durable, each beside its source."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import ClassVar, Literal

from stages.base import Job, Source, TensorSpec, UserError
from stages.benchmark.edits import PlacedEdits, SavedEdits
from stages.benchmark.facts import (
    EDIT_AREA,
    MAX_REASON_CHARS,
    GroupFacts,
    GroupMeta,
    Member,
    State,
)
from stages.benchmark.pictures import Flat, put_pixels
from stages.benchmark.place import IMAGES
from stages.benchmark.plan import Plan, asked_for, make_plan
from stages.benchmark.protocols import protocol as protocol_named
from stages.benchmark.samples import Sample, open_set, sample_facts, sample_pixels


class CollectEdits(Source[Flat, GroupFacts, GroupMeta]):
    """Collects samples and their edits in the groups in which they are judged.

    Groups are made of the whole set, so a sample has the same neighbours whatever is asked for; a
    member that is not asked for, or has no edit, has its row filled by a copy of a good one, and is
    reported as what it is. A group of which nothing is asked for is left out.

    Edits come from the section before, as it makes them durable, or, where a run has none, from
    images/ beside the output, in the layout of the protocol, whoever made them.

    Args:
        protocol: whose layout it is, as for `SaveEdits`.
        model_name: what the editor is called there, likewise.
        group_size: samples that are judged together.
        threads: that decode the images of a group.
        data_format: this and all others as for `ReadSamples`, and the same as there.
        categories: likewise.
        limit: likewise.
        languages: likewise.
        images: likewise.
        area: likewise.
    """

    library: ClassVar[Literal["numpy", "torch"]] = "numpy"
    facts_type: ClassVar[type] = GroupFacts
    meta_type: ClassVar[type] = GroupMeta
    writes: ClassVar[tuple[str, ...]] = ("sources", "edits")
    unit: ClassVar[str] = "samples"

    def __init__(
        self,
        *,
        protocol: str = "origin",
        model_name: str = "edits",
        group_size: int = 8,
        threads: int = 4,
        data_format: str = "auto",
        categories: Sequence[str] = (),
        limit: int = 0,
        languages: Sequence[str] = (),
        images: str = "",
        area: int = EDIT_AREA,
    ) -> None:
        if threads < 1:
            raise UserError(f"threads = {threads}: at least 1")
        self._threads = threads
        self._protocol, self._model_name = protocol_named(protocol), model_name
        self._group_size, self._area = group_size, area
        self._data_format, self._images = data_format, images
        self._categories, self._limit, self._languages = categories, limit, tuple(languages)
        self.warnings: list[str] = []
        self.broken = ""
        self.needs: Sequence[int] = ()  # the samples of its group and of those before it
        self._samples: tuple[Sample, ...] = ()
        self._plan = Plan(groups=(), asked=frozenset())
        self._edits: SavedEdits | PlacedEdits | None = None

    def open(self, job: Job) -> GroupFacts:
        """Read the set but for its pixels, and plan the groups.

        Raises:
            UserError: the set cannot be read; or a run without an edit section finds no edits.
        """
        found = open_set(job, self._data_format, languages=self._languages, images=self._images)
        asked = asked_for(found.samples, job.input, categories=self._categories, limit=self._limit)
        self._samples, self.broken = found.samples, found.broken
        self._plan = make_plan(
            found.samples, asked=asked, area=self._area, group_size=self._group_size
        )
        self.needs = self._plan.needs() if job.earlier else ()
        wanted = tuple(found.samples[at] for at in self._plan.order)
        facts = sample_facts(job, wanted)
        self._edits = self._edits_of(job, [one for one in wanted if not one.problem])
        return GroupFacts(
            job=job,
            num_samples=len(wanted),
            group_size=self._group_size,
            max_source_bytes=facts.max_source_bytes,
            max_edited_bytes=self._edits.max_bytes,
            max_instruction_bytes=facts.max_instruction_bytes,
        )

    def specs(self, facts: GroupFacts) -> dict[str, TensorSpec]:
        """Return `sources` and `edits` [group_size, bytes]: rows of RGB pixels, then zeros."""
        return {
            "sources": TensorSpec((facts.group_size, facts.max_source_bytes), "uint8"),
            "edits": TensorSpec((facts.group_size, facts.max_edited_bytes), "uint8"),
        }

    def keys(self) -> Sequence[int]:
        """Return the numbers of the groups in the plan of the whole set."""
        return self._plan.asked_groups

    def num_units(self) -> int:
        """Return how many samples are asked for."""
        return len(self._plan.asked)

    def read(self, key: int | str, outputs: Mapping[str, Flat]) -> GroupMeta:
        """Write the pixels of a group, each member's or a copy of a good one's."""
        group = self._plan.groups[int(key)]
        with ThreadPoolExecutor(self._threads) as pool:  # decoding lets go of the interpreter
            made = pool.map(partial(self._member, outputs), group, range(len(group)))
            members = list(made)
        good = next((row for row, one in enumerate(members) if one.state == "edited"), -1)
        members = [one if one.state == "edited" else replace(one, copy_of=good) for one in members]
        for row in range(self._group_size):
            if row >= len(members) or members[row].copy_of != row:
                for rows in (outputs["sources"], outputs["edits"]):
                    rows[row] = rows[good] if good >= 0 else 0
        return GroupMeta(members=tuple(members))

    def _member(self, outputs: Mapping[str, Flat], at: int, row: int) -> Member:
        """Return what becomes of a sample; only if it is edited are its pixels written."""
        sample = self._samples[at]
        if at not in self._plan.asked:
            return _without_edit(sample, "unasked", "")
        assert self._edits is not None, "open comes first"
        try:
            source, edit = sample_pixels(sample), self._edits.read(sample)
        except UserError as error:
            return _without_edit(sample, "failed", str(error))
        put_pixels(source, outputs["sources"][row])
        put_pixels(edit, outputs["edits"][row])
        return replace(_without_edit(sample, "edited", ""), edited=edit.shape[:2], copy_of=row)

    def _edits_of(self, job: Job, samples: Sequence[Sample]) -> SavedEdits | PlacedEdits:
        if job.earlier:
            return SavedEdits(job.earlier, samples, self._area)
        images = Path(job.output).parent / IMAGES
        paths = {
            one.id: images
            / self._protocol.image_path(one.id, one.group, one.language, self._model_name)
            for one in samples
        }
        return PlacedEdits(paths)


def _without_edit(sample: Sample, state: State, reason: str) -> Member:
    return Member(
        id=sample.id,
        group=sample.group,
        language=sample.language,
        instruction=sample.instruction,
        source=(sample.height, sample.width),
        edited=(0, 0),
        state=state,
        reason=reason[:MAX_REASON_CHARS],
        copy_of=-1,
        tags=sample.tags,
    )
