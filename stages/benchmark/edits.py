"""Where edits come from, for those who judge them: this run's own store, or a folder of images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from stages.base import UserError
from stages.benchmark.facts import edited_size
from stages.benchmark.pictures import Pixels, read_pixels, size_of
from stages.benchmark.samples import Sample
from stages.benchmark.store import EditStore


class SavedEdits:
    """The edits of the section before: each is there when its sample is done."""

    def __init__(self, work_dir: str, samples: Sequence[Sample], area: int) -> None:
        self._store = EditStore(work_dir)
        sizes = (edited_size(sample.height, sample.width, area) for sample in samples)
        self.max_bytes = max(height * width * 3 for height, width in sizes)

    def read(self, sample: Sample) -> Pixels:
        """Return the edit of a sample.

        Raises:
            UserError: it failed, with the reason; or its file is not what was saved.
        """
        record = self._store.record(sample)
        if record.reason:
            raise UserError(record.reason)
        return _checked(sample, self._store.image(sample.id), record.edited)


class PlacedEdits:
    """Edits that lie in a folder, whoever made them.

    Raises:
        UserError: there is not one.
    """

    def __init__(self, paths: Mapping[str, Path]) -> None:
        self._paths = paths
        self._sizes: dict[str, tuple[int, int]] = {}
        self._problems: dict[str, str] = {}
        for sample_id, path in paths.items():
            try:
                self._sizes[sample_id] = size_of(str(path))
            except UserError as error:
                self._problems[sample_id] = str(error)
        if not self._sizes:
            first = next(iter(paths.values()))
            raise UserError(
                f"{first}: no edit there, nor of any other sample; edit first, "
                "or see that protocol, model_name and output are those of the edits"
            )
        self.max_bytes = max(height * width * 3 for height, width in self._sizes.values())

    def read(self, sample: Sample) -> Pixels:
        """Return the edit of a sample.

        Raises:
            UserError: there is none, or it cannot be decoded.
        """
        if problem := self._problems.get(sample.id):
            raise UserError(f"sample {sample.id}: of the edit, {problem}")
        return _checked(sample, self._paths[sample.id], self._sizes[sample.id])


def _checked(sample: Sample, path: Path, size: tuple[int, int]) -> Pixels:
    try:
        pixels = read_pixels(path)
    except UserError as error:
        raise UserError(f"sample {sample.id}: of the edit {path}, {error}") from error
    if pixels.shape[:2] != size:
        raise UserError(
            f"sample {sample.id}: the edit {path} was {size[1]}x{size[0]}, and is another by now"
        )
    return pixels
