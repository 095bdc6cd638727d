"""The ends of a pipeline that is measured without video files: frames from memory, a null writer.

What is measured is the stages between, so the source copies frames that it holds and the sink
reads every byte, which gives a checksum, and writes down when.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from stages.base import Durable, Item, Job, Sink, Source, TensorSpec, UserError
from stages.window import VideoFacts, WindowMeta

Bytes = NDArray[np.uint8]

NUM_HELD = 17  # different frames in memory, shown again and again
BLOCK_BYTES = 8192  # about ten lines of a picture; smaller ones are slower to add up
_NOTES = "written"  # folder of the segments' `Written`, in the run directory


class Stream(msgspec.Struct, frozen=True, kw_only=True):
    """The input of `MemoryFrames`: what to make up. The job's input file holds it as JSON."""

    width: int
    height: int
    num_pairs: int


class Written(msgspec.Struct, frozen=True, kw_only=True):
    """What a sink took: of one segment, or of a whole job, whose items are in order."""

    items: tuple[int, ...]
    stamps_ns: tuple[int, ...]  # CLOCK_MONOTONIC when each item was taken and read
    num_pairs: tuple[int, ...]  # of each item
    checksums: tuple[str, ...]  # likewise, of all its frames and frames between

    @property
    def checksum(self) -> str:
        """Of all items in their order, whichever replica took them."""
        return hashlib.sha256("".join(self.checksums).encode()).hexdigest()


class Notes:
    """What one replica of a sink writes down, a file a segment, for `joined` to read."""

    def __init__(self, work_dir: str) -> None:
        self._folder = Path(work_dir) / _NOTES
        self._folder.mkdir(exist_ok=True)
        self._rows: list[tuple[int, int, int, str]] = []

    def add(self, item: int, num_pairs: int, checksum: str) -> None:
        """Note that the item has been taken now."""
        self._rows.append((item, time.monotonic_ns(), num_pairs, checksum))

    def close_segment(self) -> tuple[Written, str]:
        """Write the segment's file; return what is in it, and its name in the run directory."""
        items, stamps_ns, num_pairs, checksums = zip(*self._rows, strict=True)
        self._rows = []
        written = Written(
            items=items, stamps_ns=stamps_ns, num_pairs=num_pairs, checksums=checksums
        )
        path = self._folder / f"{items[0]:06}.json"
        path.write_bytes(msgspec.json.encode(written))
        return written, f"{_NOTES}/{path.name}"


def joined(work_dir: Path) -> Written:
    """Return what all replicas have written down in a run directory."""
    files = sorted((work_dir / _NOTES).iterdir())
    segments = [msgspec.json.decode(path.read_bytes(), type=Written) for path in files]
    return Written(
        items=tuple(item for one in segments for item in one.items),
        stamps_ns=tuple(stamp for one in segments for stamp in one.stamps_ns),
        num_pairs=tuple(pairs for one in segments for pairs in one.num_pairs),
        checksums=tuple(text for one in segments for text in one.checksums),
    )


def block_sums(frame: Bytes) -> NDArray[np.uint64]:
    """Return the sum of each block of a frame: 64-bit words modulo 2 ** 64, then single bytes.

    Reads every byte about as fast as memory gives them, which no digest does, and tells a frame
    from any other, and from itself with planes, or more than ten lines, in other places.
    """
    in_blocks = frame.size // BLOCK_BYTES * BLOCK_BYTES
    blocks = frame[:in_blocks].view(np.uint64).reshape(-1, BLOCK_BYTES // 8)
    return np.append(blocks.sum(1), frame[in_blocks:].sum(dtype=np.uint64))


class MemoryFrames(Source[Bytes, VideoFacts, WindowMeta]):
    """Windows of noise, as `ReadVideo` makes them of a file; the same ones every time.

    Args:
        pairs: K, the frame pairs of a window; a job's agreed `size` overrides it.
    """

    library: ClassVar[Literal["numpy", "torch"]] = "numpy"
    facts_type: ClassVar[type] = VideoFacts
    meta_type: ClassVar[type] = WindowMeta
    writes: ClassVar[tuple[str, ...]] = ("frames",)
    unit: ClassVar[str] = "frame pairs"

    def __init__(self, *, pairs: int = 16) -> None:
        self._pairs = pairs

    def open(self, job: Job) -> VideoFacts:
        """Make the frames and return their facts.

        Raises:
            UserError: the input is no `Stream`.
        """
        try:
            stream = msgspec.json.decode(Path(job.input).read_bytes(), type=Stream)
        except msgspec.MsgspecError as error:
            raise UserError(f"{job.input}: describes no stream of frames: {error}") from error
        even = stream.width % 2 == 0 and stream.height % 2 == 0
        self._facts = facts = VideoFacts(
            job=job,
            width=stream.width,
            height=stream.height,
            num_frames=stream.num_pairs + 1,
            pairs_per_item=job.size or self._pairs,
            pixel_format="yuv420p" if even else "yuv444p",
            color_matrix="bt709",
            color_range="limited",
        )
        shape = (NUM_HELD, facts.frame_bytes)
        self._frames = np.random.default_rng(0).integers(16, 236, shape, np.uint8)
        return facts

    def specs(self, facts: VideoFacts) -> dict[str, TensorSpec]:
        """Return `frames` [K + 1, frame_bytes], planar YUV."""
        return {"frames": TensorSpec((facts.pairs_per_item + 1, facts.frame_bytes), "uint8")}

    def keys(self) -> Sequence[int]:
        """Return the positions of all windows."""
        return range(self._facts.num_windows)

    @property
    def item_size(self) -> int:
        """Frame pairs of a window."""
        return self._facts.pairs_per_item

    def num_units(self) -> int:
        """Return the frame pairs of the whole stream."""
        return self._facts.num_pairs

    def read(self, key: int | str, outputs: Mapping[str, Bytes]) -> WindowMeta:
        """Copy the frames of window `key`; rows behind the last frame repeat it."""
        rows, last = outputs["frames"], self._facts.num_pairs
        first = int(key) * self._facts.pairs_per_item
        for place in range(len(rows)):
            rows[place] = self._frames[min(first + place, last) % NUM_HELD]
        num_pairs = min(self._facts.pairs_per_item, last - first)
        pts = tuple(range(first, first + num_pairs + 1))
        return WindowMeta(num_pairs=num_pairs, pts=pts, cuts=(False,) * num_pairs)


class MemoryPairs(MemoryFrames):
    """Also the frames between, which are noise too: for what is measured without any model."""

    writes: ClassVar[tuple[str, ...]] = ("frames", "middle")

    def specs(self, facts: VideoFacts) -> dict[str, TensorSpec]:
        """Return `frames` and `middle` [K, color_bytes]."""
        middle = TensorSpec((facts.pairs_per_item, facts.color_bytes), "uint8")
        return {**super().specs(facts), "middle": middle}

    def read(self, key: int | str, outputs: Mapping[str, Bytes]) -> WindowMeta:
        """Copy both."""
        first = int(key) * self._facts.pairs_per_item
        for place, row in enumerate(outputs["middle"]):
            row[:] = self._frames[(first + place + 1) % NUM_HELD][: row.size]
        return super().read(key, outputs)


class NullWriter(Sink[Bytes, VideoFacts, WindowMeta]):
    """Reads what `WriteVideo` would write, and keeps when it came and a checksum of it.

    Args:
        segment_windows: as `WriteVideo` has it; how many items are under way follows from it.
    """

    library: ClassVar[Literal["numpy", "torch"]] = "numpy"
    facts_type: ClassVar[type] = VideoFacts
    meta_type: ClassVar[type] = WindowMeta
    reads: ClassVar[tuple[str, ...]] = ("frames", "middle")

    def __init__(self, *, segment_windows: int = 4) -> None:
        self._segment_windows = segment_windows

    @property
    def items_per_segment(self) -> int:
        """Windows that count as durable together."""
        return self._segment_windows

    def open(self, facts: VideoFacts) -> None:
        """Forget the last job."""
        self._facts, self._notes = facts, Notes(facts.job.work_dir)
        self._last = -1  # the item taken last

    def write(self, item: Item[WindowMeta], inputs: Mapping[str, Bytes], meta: object) -> int:
        """Read every byte of the item's real pairs; nothing of a failed one."""
        num_pairs = 0 if item.failed or item.meta is None else item.meta.num_pairs
        checksum = hashlib.sha256()
        for name in self.reads if num_pairs else ():
            for frame in inputs[name][:num_pairs]:
                checksum.update(block_sums(frame).tobytes())
        self._notes.add(item.index, num_pairs, checksum.hexdigest())
        self._last = item.index
        return num_pairs

    def commit(self) -> list[Durable]:
        """Return a whole segment, as if it had been written."""
        is_last = self._last + 1 == self._facts.num_windows
        if (self._last + 1) % self._segment_windows and not is_last:
            return []
        written, file = self._notes.close_segment()
        counts = {"frame pairs": sum(written.num_pairs)}
        return [Durable(items=written.items, files=(file,), counts=counts)]

    def finish(self, items: Sequence[int]) -> None:
        """Write the `Written` of all replicas as the job's output."""
        everything = joined(Path(self._facts.job.work_dir))
        Path(self._facts.job.output).write_bytes(msgspec.json.encode(everything))


class NullReader(NullWriter):
    """Takes the source's frames alone: for a source that is measured without any model."""

    reads: ClassVar[tuple[str, ...]] = ("frames",)
