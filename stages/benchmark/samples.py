"""A set of samples, opened: each with an image that can be read at any time, or why it has none.

Images that a set holds in itself (Base64 in JSON, parquet) are taken out once, while it is read as
a stream, into `<run_dir>/samples`: neither format can be read from the middle, replay reads any
sample at any time, and both sections of a run read the same set, perhaps at once. Whoever comes
first does it, under a lock; an index is written last, and whoever finds one of the same input takes
it. Images that lie beside the set are read where they are.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from hashlib import blake2b
from pathlib import Path

import msgspec

from stages.base import Job, UserError
from stages.benchmark import pictures
from stages.benchmark.facts import MAX_INSTRUCTION_BYTES, SampleFacts
from stages.benchmark.formats.choose import HOLDING_IMAGES, files_of, format_of, records_of
from stages.benchmark.formats.record import BrokenInputError, Reading, Record

FOLDER = "samples"  # in the run's folder
_INDEX, _LOCK = "index.json", ".lock"
_INDEX_VERSION = 1
_MAX_ID_BYTES = 200  # UTF-8


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One sample of a set."""

    id: str  # unlike all others of its set
    place: str  # "record 3": where a person finds it
    group: str
    language: str
    instruction: str
    image: str = ""  # path
    image_bytes: int = 0  # of the file
    height: int = 0  # of the image; 0 = it cannot be used
    width: int = 0
    tags: tuple[str, ...] = ()
    problem: str = ""  # why it cannot be used

    @property
    def why_unusable(self) -> str:
        """What to tell a user of a sample with a problem."""
        return f"sample {self.id} ({self.place}): {self.problem}"


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleSet:
    """All samples of a set, in its own order."""

    samples: tuple[Sample, ...]
    broken: str = ""  # why it is not whole


@dataclass(frozen=True, slots=True, kw_only=True)
class _Index:
    made_of: tuple[str, ...]
    samples: SampleSet


_Keep = Callable[[str, bytes | str], tuple[str, int]]  # id, image -> its path and size in bytes


def open_set(job: Job, data_format: str, *, languages: tuple[str, ...], images: str) -> SampleSet:
    """Read the whole set of a job, but for its pixels.

    Args:
        job: whose `input` it is.
        data_format: its name, or "auto".
        languages: wanted, best first; () = all, English where a record has a choice.
        images: folder of images that lie beside the set; "" = where its file lies.

    Raises:
        UserError: it cannot be read, or there is no room for its images.
    """
    name = format_of(job.input, data_format)
    reading = Reading(
        path=job.input, languages=languages, images=images and os.path.abspath(images)
    )
    if name not in HOLDING_IMAGES:
        return _read(reading, name, _where_it_lies)
    folder = Path(job.run_dir or job.work_dir) / FOLDER
    try:
        with _locked(folder):
            return _extracted(folder, reading, name)
    except OSError as error:
        raise UserError(
            f"{folder}: no place for the images of {job.input} ({error.strerror or error})"
        ) from error


def sample_pixels(sample: Sample) -> pictures.Pixels:
    """Return a sample's pixels, uint8 [height, width, 3].

    Raises:
        UserError: it cannot be used, cannot be decoded, or is another image than it was.
    """
    if sample.problem:
        raise UserError(sample.why_unusable)
    try:
        pixels = pictures.read_pixels(sample.image)
    except UserError as error:
        raise UserError(replace(sample, problem=str(error)).why_unusable) from error
    if pixels.shape != (sample.height, sample.width, 3):
        problem = f"its image was {sample.width}x{sample.height}, and is another by now"
        raise UserError(replace(sample, problem=problem).why_unusable)
    return pixels


def sample_facts(job: Job, samples: tuple[Sample, ...]) -> SampleFacts:
    """Return the facts of these samples of a job's set.

    Raises:
        UserError: not one can be used.
    """
    good = [sample for sample in samples if not sample.problem]
    if not good:
        reason = f"; {samples[0].why_unusable}" if samples else ""
        raise UserError(f"{job.input}: not one sample of it can be used{reason}")
    sizes = {(sample.height, sample.width) for sample in good}
    largest_first = sorted(sizes, key=lambda size: (-size[0] * size[1], size))
    return SampleFacts(
        job=job,
        num_samples=len(samples),
        max_source_bytes=max(height * width * 3 for height, width in sizes),
        max_instruction_bytes=max(len(sample.instruction.encode()) for sample in good),
        sizes=tuple(largest_first),
    )


def file_name(sample_id: str) -> str:
    """Return the name of a sample's own files, without ending: plain, and unlike all others'."""
    plain = "".join(sign if sign.isascii() and sign.isalnum() else "-" for sign in sample_id)
    if plain == sample_id and len(plain) <= 60:
        return plain
    digest = blake2b(sample_id.encode("utf-8", "surrogatepass"), digest_size=6).hexdigest()
    return f"{plain[:60]}_{digest}"


def _extracted(folder: Path, reading: Reading, name: str) -> SampleSet:
    made_of = _made_of(reading, name)
    found = _indexed(folder, made_of)
    if found is None:
        found = _read(reading, name, _Extraction(folder).keep)
        index = _Index(made_of=made_of, samples=found)
        pictures.sync_folder(folder)
        pictures.write_file(folder / _INDEX, msgspec.json.encode(index))
        pictures.sync_folder(folder)
    return found


def _made_of(reading: Reading, name: str) -> tuple[str, ...]:
    """Return all that what is extracted depends on; another input is noticed by its time."""
    stats = ((path, os.stat(path)) for path in files_of(reading.path, name))
    files = (f"{path}: {stat.st_size} bytes, {stat.st_mtime_ns} ns" for path, stat in stats)
    return (f"version {_INDEX_VERSION}", name, f"languages {reading.languages}", *files)


def _indexed(folder: Path, made_of: tuple[str, ...]) -> SampleSet | None:
    """Return the set that was extracted earlier, None unless every file of it is as it was left."""
    try:
        index = msgspec.json.decode((folder / _INDEX).read_bytes(), type=_Index)
        good = [sample for sample in index.samples.samples if not sample.problem]
        is_whole = all(os.path.getsize(one.image) == one.image_bytes for one in good)
    except (OSError, msgspec.DecodeError):
        return None
    return index.samples if is_whole and index.made_of == made_of else None


class _Extraction:
    """Writes the images of a set into files of their own."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def keep(self, sample_id: str, image: bytes | str) -> tuple[str, int]:
        assert isinstance(image, bytes), "this format holds its images"
        path = self._folder / f"{file_name(sample_id)}.{pictures.kind_of(image)}"
        pictures.write_file(path, image)
        return str(path), len(image)


def _where_it_lies(_sample_id: str, image: bytes | str) -> tuple[str, int]:
    assert isinstance(image, str), "this format names its images"
    return os.path.abspath(image), os.path.getsize(image)


def _read(reading: Reading, name: str, keep: _Keep) -> SampleSet:
    samples: list[Sample] = []
    broken = ""
    try:
        samples.extend(_checked(records_of(reading, name), keep))  # keeps those before a break
    except BrokenInputError as error:
        broken = f"{reading.path}: breaks off after {len(samples)} samples ({error})"
    if not samples and broken:
        raise UserError(f"{broken}; give a whole file")
    if not samples:
        language = f" in {', '.join(reading.languages)}" if reading.languages else ""
        raise UserError(f"{reading.path}: there is no sample{language} in it; give another set")
    return SampleSet(samples=tuple(samples), broken=broken)


def _checked(records: Iterable[Record], keep: _Keep) -> Iterator[Sample]:
    """Yield a sample for every record, whether it can be used or not."""
    places: dict[str, str] = {}
    for record in records:
        sample = _sample(record)
        if sample.id in places:
            twin = _unusable(sample, f"{places[sample.id]} has the same id; only that is used")
            sample = replace(twin, id=f"{twin.id} again, {record.place}")
        places[sample.id] = record.place
        if not sample.problem:
            sample = _with_image(sample, record.image, keep)
        yield sample


def _sample(record: Record) -> Sample:
    sample = Sample(
        id=record.id,
        place=record.place,
        group=record.group,
        language=record.language,
        instruction=record.instruction,
        tags=record.tags,
    )
    problem = record.problem or _problem(record)
    return _unusable(sample, problem) if problem else sample


def _problem(record: Record) -> str:
    texts = (record.id, record.group, record.language, record.instruction)
    if any(_bytes_of(text) < 0 for text in texts):
        return "its texts are no valid Unicode"
    if not record.id.strip() or not record.id.isprintable() or _bytes_of(record.id) > _MAX_ID_BYTES:
        return f"its id is no name of up to {_MAX_ID_BYTES} bytes"
    if not record.group.strip():
        return "its group is empty"
    if not record.instruction.strip():
        return "its instruction is empty"
    length = _bytes_of(record.instruction)
    if length > MAX_INSTRUCTION_BYTES:
        return f"its instruction has {length} bytes, over {MAX_INSTRUCTION_BYTES}"
    return ""


def _bytes_of(text: str) -> int:
    """Return a text's length in UTF-8, -1 if it has none."""
    try:
        return len(text.encode())
    except UnicodeEncodeError:
        return -1


def _unusable(sample: Sample, problem: str) -> Sample:
    """Return the sample with the reason why it cannot be used, its texts cut to what can travel."""

    def short(text: str) -> str:
        return text[:_MAX_ID_BYTES].encode(errors="backslashreplace").decode()

    return replace(
        sample,
        id=short(sample.id),
        group=short(sample.group),
        language=short(sample.language),
        instruction=short(sample.instruction),
        problem=problem,
    )


def _with_image(sample: Sample, image: bytes | str, keep: _Keep) -> Sample:
    try:
        height, width = pictures.size_of(image)
    except UserError as error:
        return _unusable(sample, str(error))
    path, image_bytes = keep(sample.id, image)
    return replace(sample, image=path, image_bytes=image_bytes, height=height, width=width)


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Keep out others who would extract into the same folder; the lock goes with its holder."""
    folder.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(folder / _LOCK, os.O_CREAT | os.O_RDWR, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
