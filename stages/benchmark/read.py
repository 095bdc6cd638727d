"""The source of samples: an image and an instruction each, in any order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar, Literal

from stages.base import Job, Source, TensorSpec
from stages.benchmark.facts import EDIT_AREA, SampleFacts, SampleMeta, sample_seed
from stages.benchmark.items import write_items
from stages.benchmark.pictures import Flat, put_pixels
from stages.benchmark.plan import asked_for, make_plan
from stages.benchmark.samples import Sample, open_set, sample_facts, sample_pixels


class ReadSamples(Source[Flat, SampleFacts, SampleMeta]):
    """Reads a set of samples, whole and valid or not: one that cannot be used fails by itself.

    Samples come in the order of the groups that are judged together, so that the first group is
    complete early: by the size of their edits, largest first, then by id.

    Args:
        data_format: "origin", "re-edit", "gedit", "imgedit", "folder"; "auto" = by its looks.
        categories: only these; of the five also by their Chinese names. () = all.
        limit: the first so many of the set (and of these categories); 0 = all. Neither regroups.
        languages: "en", "zh" or "cn". Of a record that has its instruction in several, the first
            of these; records of others are no part of the set. () = all, English where both are.
        images: folder of images that a set only names; "" = where the set lies.
        area: about how many pixels an edited image has.
    """

    library: ClassVar[Literal["numpy", "torch"]] = "numpy"
    facts_type: ClassVar[type] = SampleFacts
    meta_type: ClassVar[type] = SampleMeta
    writes: ClassVar[tuple[str, ...]] = ("source",)
    unit: ClassVar[str] = "samples"

    def __init__(
        self,
        *,
        data_format: str = "auto",
        categories: Sequence[str] = (),
        limit: int = 0,
        languages: Sequence[str] = (),
        images: str = "",
        area: int = EDIT_AREA,
    ) -> None:
        self._data_format, self._images, self._area = data_format, images, area
        self._categories, self._limit, self._languages = categories, limit, tuple(languages)
        self.warnings: list[str] = []
        self.broken = ""
        self._samples: dict[str, Sample] = {}  # in order of admission
        self._seed = 0

    def open(self, job: Job) -> SampleFacts:
        """Read the set but for its pixels, take out the images that it holds, list its items.

        Raises:
            UserError: the set cannot be read, or nothing of what is asked for can be used.
        """
        found = open_set(job, self._data_format, languages=self._languages, images=self._images)
        asked = asked_for(found.samples, job.input, categories=self._categories, limit=self._limit)
        plan = make_plan(found.samples, asked=asked, area=self._area, group_size=1)
        self._samples = {found.samples[at].id: found.samples[at] for at in plan.order}
        self.broken, self._seed = found.broken, job.seed
        write_items(job.work_dir, tuple(self._samples.values()))
        return sample_facts(job, tuple(self._samples.values()))

    def specs(self, facts: SampleFacts) -> dict[str, TensorSpec]:
        """Return `source` [max_source_bytes]: RGB pixels, row-major, then zeros."""
        return {"source": TensorSpec((facts.max_source_bytes,), "uint8")}

    def keys(self) -> Sequence[str]:
        """Return the ids of the samples that are asked for, in order of their groups."""
        return tuple(self._samples)

    def num_units(self) -> int:
        """Return how many samples are asked for."""
        return len(self._samples)

    def read(self, key: int | str, outputs: Mapping[str, Flat]) -> SampleMeta:
        """Write the pixels of the sample `key`.

        Raises:
            UserError: it cannot be used, or its image cannot be decoded.
        """
        sample = self._samples[str(key)]
        put_pixels(sample_pixels(sample), outputs["source"])
        return SampleMeta(
            id=sample.id,
            group=sample.group,
            language=sample.language,
            instruction=sample.instruction,
            height=sample.height,
            width=sample.width,
            seed=sample_seed(self._seed, sample.id),
            tags=sample.tags,
        )
