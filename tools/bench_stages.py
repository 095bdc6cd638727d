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


class Stream(msgspec.Struct, frozen=True, kw_only=True):
    """The input of `MemoryFrames`: what to make up. The job's input file holds it as JSON."""

    width: int
    height: int
    num_pairs: int


class Written(msgspec.Struct, frozen=True, kw_only=True):
    """The output of `NullWriter`, likewise."""

    stamps_ns: tuple[int, ...]  # CLOCK_MONOTONIC when each item was taken and read
    num_pairs: tuple[int, ...]  # of each item
    sha256: str  # of all frames and all frames between, item after item


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
        self._facts, self._hash = facts, hashlib.sha256()
        self._stamps_ns: list[int] = []
        self._num_pairs: list[int] = []
        self._segment: list[tuple[int, int]] = []  # (item, its pairs)

    def write(self, item: Item[WindowMeta], inputs: Mapping[str, Bytes], meta: object) -> int:
        """Read every byte of the item's real pairs; nothing of a failed one."""
        num_pairs = 0 if item.failed or item.meta is None else item.meta.num_pairs
        for name in self.reads if num_pairs else ():
            self._hash.update(inputs[name][:num_pairs])
        self._stamps_ns.append(time.monotonic_ns())
        self._num_pairs.append(num_pairs)
        self._segment.append((item.index, num_pairs))
        return num_pairs

    def commit(self) -> list[Durable]:
        """Return a whole segment, as if it had been written."""
        is_last = self._segment[-1][0] + 1 == self._facts.num_windows
        if len(self._segment) < self._segment_windows and not is_last:
            return []
        items, pairs = zip(*self._segment, strict=True)
        self._segment = []
        return [Durable(items=items, files=(), counts={"frame pairs": sum(pairs)})]

    def finish(self, items: Sequence[int]) -> None:
        """Write the `Written` as the job's output."""
        written = Written(
            stamps_ns=tuple(self._stamps_ns),
            num_pairs=tuple(self._num_pairs),
            sha256=self._hash.hexdigest(),
        )
        Path(self._facts.job.output).write_bytes(msgspec.json.encode(written))
