"""The sink of edits: each durable by itself; at the end all in the layout of their protocol."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import ClassVar, Literal

import msgspec

from stages.base import Durable, Item, Sink, UserError
from stages.benchmark.facts import SampleFacts, SampleMeta
from stages.benchmark.items import read_items
from stages.benchmark.pictures import Flat
from stages.benchmark.place import IMAGES, is_same_file, place
from stages.benchmark.protocols import protocol as protocol_named
from stages.benchmark.samples import Sample, sample_pixels
from stages.benchmark.store import EditRecord, EditStore, edited_record, failed_record
from stages.output import is_published, publish

_WITH_SOURCES = ("gedit",)  # protocols whose tools read the source beside its edit


class SaveEdits(Sink[Flat, SampleFacts, SampleMeta]):
    """Makes each edit durable as a PNG, and says of each sample what came of it.

    At the end the edits lie below images/ beside the output, as the tools of the protocol's
    publishers read them, and the output has one line of JSON for each sample, also for those that
    failed, with the reason.

    Args:
        protocol: whose layout it is: "origin", "gedit", "imgedit".
        model_name: what the editor is called there.
    """

    library: ClassVar[Literal["numpy", "torch"]] = "numpy"
    facts_type: ClassVar[type] = SampleFacts
    meta_type: ClassVar[type] = SampleMeta
    reads: ClassVar[tuple[str, ...]] = ("edited",)

    def __init__(self, *, protocol: str = "origin", model_name: str = "edits") -> None:
        self._protocol, self._model_name = protocol_named(protocol), model_name
        self.warnings: list[str] = []
        self._facts: SampleFacts | None = None
        self._items: tuple[Sample, ...] = ()
        self._durable: list[Durable] = []

    def open(self, facts: SampleFacts) -> None:
        """Check where everything is to lie, and make the folders.

        Raises:
            UserError: the output cannot be written there, or exists; a sample is of no group that
                the protocol knows; two samples would get one file.
        """
        self._items = read_items(facts.job.work_dir)
        self._facts, self._durable = facts, []
        _check_output(facts)
        self._check_images()
        self._store().make()

    def write(
        self, item: Item[SampleMeta], inputs: Mapping[str, Flat], meta: SampleMeta | None
    ) -> int:
        """Make one sample durable, with its edit or the reason why there is none."""
        sample, reason = self._items[item.index], item.failed
        files: tuple[str, ...] = ()
        if meta is not None and not reason:
            assert meta.id == sample.id, "items are in the order of the source's keys"
            try:
                files = self._put_edit(sample, inputs["edited"], meta)
            except UserError as error:  # its source is gone; the edit alone is of no use there
                reason = str(error)
        if not files:
            files = self._store().put(failed_record(sample, reason), None)
        self._durable.append(Durable(items=(item.index,), files=files))
        return 0 if reason else 1

    def commit(self) -> list[Durable]:
        """Return what was written since the last call."""
        durable, self._durable = self._durable, []
        return durable

    def finish(self, items: Sequence[int]) -> None:
        """Put the edits of `items` where they are expected, and write the list of them last.

        Also again, after a process was killed at it. The store stays: scores may be missing yet.

        Raises:
            OSError: the disk is full or broken.
            UserError: a file appeared under the output's name meanwhile.
        """
        facts = self._opened()
        _check_output(facts)
        lines = []
        for sample in (self._items[item] for item in sorted(items)):
            record = self._store().record(sample)
            if not record.reason:
                for stored, target in self._files(sample):
                    place(stored, target)
            lines.append(msgspec.json.encode(self._line(sample, record)))
        output = Path(facts.job.output)
        temporary = output.with_name(f".{output.name}.partial")
        temporary.write_bytes(b"".join(line + b"\n" for line in lines))
        publish(temporary, output, Path(facts.job.work_dir))

    def _opened(self) -> SampleFacts:
        assert self._facts is not None, "open comes first"
        return self._facts

    def _store(self) -> EditStore:
        return EditStore(self._opened().job.work_dir)

    def _put_edit(self, sample: Sample, row: Flat, meta: SampleMeta) -> tuple[str, ...]:
        """Make an edit durable, and before it its source where that is wanted."""
        record, store = edited_record(meta), self._store()
        beside: tuple[str, ...] = ()
        if self._protocol.name in _WITH_SOURCES:
            beside = (store.put_source(sample.id, sample_pixels(sample)),)
        height, width = record.edited
        return (*beside, *store.put(record, row[: height * width * 3].reshape(height, width, 3)))

    def _image_path(self, sample: Sample) -> str:
        return self._protocol.image_path(sample.id, sample.group, sample.language, self._model_name)

    def _files(self, sample: Sample) -> Iterator[tuple[Path, Path]]:
        """Yield what of a sample is stored where, and where it is expected."""
        images = Path(self._opened().job.output).parent / IMAGES
        path = self._image_path(sample)
        yield self._store().image(sample.id), images / path
        if self._protocol.name in _WITH_SOURCES:
            source = f"{path.removesuffix('.png')}_SRCIMG.png"
            yield self._store().source(sample.id), images / source

    def _line(self, sample: Sample, record: EditRecord) -> dict[str, object]:
        image = None if record.reason else f"{IMAGES}/{self._image_path(sample)}"
        return {**msgspec.to_builtins(record), "image": image, "reason": record.reason or None}

    def _check_images(self) -> None:
        """Refuse what a finished run would have to write over."""
        facts = self._opened()
        taken: dict[Path, str] = {}
        is_done = is_published(Path(facts.job.output), Path(facts.job.work_dir))
        for sample in (one for one in self._items if not one.problem):
            for stored, target in self._files(sample):
                if target in taken:
                    raise UserError(f"samples {taken[target]} and {sample.id}: both are {target}")
                taken[target] = sample.id
                if facts.job.overwrite or is_done or not target.exists():
                    continue
                if not is_same_file(stored, target):
                    raise UserError(f"{target}: exists already; use --overwrite or another output")


def _check_output(facts: SampleFacts) -> None:
    """Check the output's place, and make its folder."""
    output = Path(facts.job.output)
    folder = output.parent
    if not folder.parent.is_dir():
        raise UserError(f"{folder}: no folder {folder.parent}; make it first")
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder}: a file; name a folder for the results")
    try:
        folder.mkdir(exist_ok=True)
    except OSError as error:
        raise UserError(f"{folder}: cannot be made ({error.strerror})") from error
    if not os.access(folder, os.W_OK):
        raise UserError(f"{folder}: may not write there; choose another folder")
    if output.is_dir():
        raise UserError(f"{output}: a folder, where a file is to be; choose another output")
    is_ours = facts.job.overwrite or is_published(output, Path(facts.job.work_dir))
    if output.exists() and not is_ours:
        raise UserError(f"{output}: exists already; use --overwrite or another output")
