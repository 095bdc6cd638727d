"""The store of edits: one PNG and one small record per sample, each whole and synced.

    <work_dir>/edits/NAME.png           the edit; none of a sample that failed
    <work_dir>/edits/NAME.json          what is known of it, or why it failed
    <work_dir>/edits/NAME_SRCIMG.png    its source, where the protocol's layout has it

A record is written last: with it, the edit is there.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import msgspec

from stages.benchmark.facts import MAX_REASON_CHARS, SampleMeta
from stages.benchmark.pictures import Pixels, sync_folder, write_file, write_png
from stages.benchmark.samples import Sample, file_name

FOLDER = "edits"


@dataclass(frozen=True, slots=True, kw_only=True)
class EditRecord:
    """What is known of one sample when it is durable."""

    id: str
    group: str
    language: str
    instruction: str
    tags: tuple[str, ...] = ()
    source: tuple[int, int]  # height, width; (0, 0) where it cannot be read
    edited: tuple[int, int] = (0, 0)  # height, width; (0, 0) where there is none
    seed: int = 0
    prompt_tokens: int = 0
    negative_tokens: int = 0
    steps: int = 0
    passes: int = 0
    tflop: float = 0.0
    reason: str = ""  # why it failed; "" = it is edited


def edited_record(meta: SampleMeta) -> EditRecord:
    """Return the record of a sample that is edited."""
    return EditRecord(
        id=meta.id,
        group=meta.group,
        language=meta.language,
        instruction=meta.instruction,
        tags=meta.tags,
        source=(meta.height, meta.width),
        edited=(meta.edited_height, meta.edited_width),
        seed=meta.seed,
        prompt_tokens=meta.prompt_tokens,
        negative_tokens=meta.negative_tokens,
        steps=meta.steps,
        passes=meta.passes,
        tflop=meta.tflop,
    )


def failed_record(sample: Sample, reason: str) -> EditRecord:
    """Return the record of a sample that failed, wherever."""
    return EditRecord(
        id=sample.id,
        group=sample.group,
        language=sample.language,
        instruction=sample.instruction,
        tags=sample.tags,
        source=(sample.height, sample.width),
        reason=reason[:MAX_REASON_CHARS],
    )


class EditStore:
    """The edits of one section, in its work_dir."""

    def __init__(self, work_dir: str) -> None:
        self._work_dir = Path(work_dir)

    def make(self) -> None:
        """Make the folder."""
        (self._work_dir / FOLDER).mkdir(mode=0o700, parents=True, exist_ok=True)

    def image(self, sample_id: str) -> Path:
        """Return where a sample's edit is."""
        return self._work_dir / self._name(sample_id, ".png")

    def source(self, sample_id: str) -> Path:
        """Return where a sample's source is, if it is kept beside its edit."""
        return self._work_dir / self._name(sample_id, "_SRCIMG.png")

    def put(self, record: EditRecord, pixels: Pixels | None) -> tuple[str, ...]:
        """Make a sample durable; return its files, relative to the work_dir.

        Raises:
            OSError: the disk is full or broken.
        """
        names = [self._name(record.id, ".json")]
        if pixels is not None:
            names.append(self._name(record.id, ".png"))
            write_png(self._work_dir / names[1], pixels)
        write_file(self._work_dir / names[0], msgspec.json.encode(record))
        sync_folder(self._work_dir / FOLDER)
        return tuple(names)

    def put_source(self, sample_id: str, pixels: Pixels) -> str:
        """Write a sample's source, return its file; `put` makes it durable.

        Raises:
            OSError: the disk is full or broken.
        """
        name = self._name(sample_id, "_SRCIMG.png")
        write_png(self._work_dir / name, pixels)
        return name

    def record(self, sample: Sample) -> EditRecord:
        """Return a sample's record; one with a reason if there is none that can be read."""
        path = self._work_dir / self._name(sample.id, ".json")
        try:
            return msgspec.json.decode(path.read_bytes(), type=EditRecord)
        except FileNotFoundError:
            return failed_record(sample, f"sample {sample.id}: no edit of it was saved")
        except (OSError, msgspec.DecodeError) as error:
            return failed_record(sample, f"{path}: is damaged ({error})")

    def _name(self, sample_id: str, ending: str) -> str:
        return f"{FOLDER}/{file_name(sample_id)}{ending}"
