"""The source of every video pipeline: windows of a video file, in any order."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import ClassVar, Literal

import av
import numpy as np

from stages.base import Job, Source, TensorSpec, UserError
from stages.video.cuts import cut_scores, thumbnails
from stages.video.decode import FrameReader, first_frame, open_file, video_stream
from stages.video.facts import check_size, facts_of, remarks
from stages.video.index import build_index
from stages.video.pixels import Bytes, copy_to_row
from stages.window import VideoFacts, WindowMeta


class ReadVideo(Source[Bytes, VideoFacts, WindowMeta]):
    """Reads any video file as windows of K + 1 frames; neighbouring windows share one frame.

    Frames keep their own samples where they are YUV 4:2:0, 4:2:2 or 4:4:4 of 8, 10 or 12 bits,
    with or without alpha. Other formats are converted once, with the matrix and range of the
    source; what is lost by it is one of the `warnings`. HDR stays as it is coded.

    A file that is cut short or damaged is read as far as it goes: `broken` says why. A frame that
    the decoder refuses, or makes parts of up, fails its window, and those after it are read again.

    Args:
        pairs: K, the frame pairs of a window; a job's agreed `size` overrides it.
        threads: that decode; of a file with faults, one.
        cut_threshold: how little two frames must have in common for a scene cut, 0 nothing new to
            1 another picture. Pans by a quarter of the picture a frame reach 0.45, cuts between
            pictures of one kind begin at 0.55. 0 = look for no cuts.
    """

    library: ClassVar[Literal["numpy", "torch"]] = "numpy"
    facts_type: ClassVar[type] = VideoFacts
    meta_type: ClassVar[type] = WindowMeta
    writes: ClassVar[tuple[str, ...]] = ("frames",)
    unit: ClassVar[str] = "frame pairs"

    def __init__(self, *, pairs: int = 16, threads: int = 2, cut_threshold: float = 0.5) -> None:
        if pairs < 1:
            raise UserError(f"pairs = {pairs}: a window has at least 1 frame pair")
        self._pairs, self._threads, self._cut_threshold = pairs, threads, cut_threshold
        self.warnings: list[str] = []
        self.broken = ""
        self._facts: VideoFacts | None = None
        self._reader: FrameReader | None = None
        self._pts: tuple[int, ...] | np.ndarray[tuple[int], np.dtype[np.int64]] = ()
        self._shared: tuple[int, Bytes] | None = None  # last frame of the last window: number, row

    def open(self, job: Job) -> VideoFacts:
        """Index the input and return its facts.

        Raises:
            UserError: no such file, no video in it, fewer than two frames, a size out of bounds,
                or not one frame that can be decoded.
        """
        self.close()
        _check_input(job.input)
        index, reading = build_index(job.input, threads=self._threads)
        frame = first_frame(job.input)
        if frame is None:
            raise UserError(f"{job.input}: none of its frames can be decoded; give another file")
        if index.pts.size < 2:
            raise UserError(
                f"{job.input}: {index.pts.size} frame(s); a frame between two needs two at least"
            )
        self._reader = FrameReader(job.input, index, threads=self._threads)
        self._pts = index.pts
        self._facts = facts_of(job, index, frame, job.size or self._pairs)
        self.broken = reading.broken(index)
        self.warnings = remarks(job.input, frame)
        if not self.broken:
            self.warnings += reading.warnings()
        return self._facts

    def specs(self, facts: VideoFacts) -> dict[str, TensorSpec]:
        """Return `frames` [K + 1, frame_bytes], planar YUV, with alpha if there is any."""
        return {"frames": TensorSpec((facts.pairs_per_item + 1, facts.frame_bytes), "uint8")}

    def keys(self) -> Sequence[int]:
        """Return the positions of all windows."""
        return range(self._opened()[0].num_windows)

    @property
    def item_size(self) -> int:
        """Frame pairs of a window."""
        return self._opened()[0].pairs_per_item

    def num_units(self) -> int:
        """Return the frame pairs of the whole video."""
        return self._opened()[0].num_pairs

    def read(self, key: int | str, outputs: Mapping[str, Bytes]) -> WindowMeta:
        """Write the frames of window `key`; rows behind the last frame repeat it.

        Raises:
            BrokenFrameError: a frame cannot be decoded.
            UserError: the video changes its size on the way.
        """
        facts, rows = self._opened()[0], outputs["frames"]
        first = int(key) * facts.pairs_per_item
        num_pairs = min(facts.pairs_per_item, facts.num_pairs - first)
        for place in range(num_pairs + 1):
            self._read_frame(first + place, rows[place])
        rows[num_pairs + 1 :] = rows[num_pairs]
        self._shared = (first + num_pairs, rows[num_pairs].copy())
        pts = tuple(int(ticks) for ticks in self._pts[first : first + num_pairs + 1])
        return WindowMeta(num_pairs=num_pairs, pts=pts, cuts=self._cuts(rows[: num_pairs + 1]))

    def close(self) -> None:
        """Close the file."""
        if self._reader is not None:
            self._reader.close()
        self._facts = self._reader = self._shared = None

    def _opened(self) -> tuple[VideoFacts, FrameReader]:
        assert self._facts is not None, "open comes first"
        assert self._reader is not None, "open comes first"
        return self._facts, self._reader

    def _read_frame(self, number: int, row: Bytes) -> None:
        facts, reader = self._opened()
        if self._shared is not None and self._shared[0] == number:
            row[:] = self._shared[1]
            return
        frame = reader.frame(number)
        if (frame.width, frame.height) != (facts.width, facts.height):
            raise UserError(
                f"{facts.job.input}: frame {number} is {frame.width}x{frame.height}, those before "
                f"it {facts.width}x{facts.height}; convert the video to one size first"
            )
        copy_to_row(frame, row, facts)

    def _cuts(self, rows: Bytes) -> tuple[bool, ...]:
        if not self._cut_threshold:
            return (False,) * (len(rows) - 1)
        scores = cut_scores(thumbnails(rows, self._opened()[0]))
        return tuple(score >= self._cut_threshold for score in scores)


def _check_input(path: str) -> None:
    if not os.path.exists(path):
        raise UserError(f"{path}: no such file; give the path of a video file")
    if os.path.isdir(path):
        raise UserError(f"{path}: a folder; give the path of a video file")
    if not os.path.getsize(path):
        raise UserError(f"{path}: the file is empty; give the path of a video file")
    try:
        with open_file(path) as container:
            stream = video_stream(container)
            if stream is None:
                raise UserError(f"{path}: no video stream in it; give the path of a video file")
            if stream.width and stream.height:  # else only its frames know
                check_size(path, stream.width, stream.height)
    except PermissionError as error:
        raise UserError(f"{path}: may not be read; check its permissions") from error
    except av.FFmpegError as error:
        way_out = "give another file"
        if _starts_as_mp4(path):
            way_out = "its index is missing: was it cut short? Copy or record it again"
        raise UserError(
            f"{path}: not a video that can be read ({error.strerror}); {way_out}"
        ) from error


def _starts_as_mp4(path: str) -> bool:
    with open(path, "rb") as file:
        return file.read(8)[4:] == b"ftyp"
