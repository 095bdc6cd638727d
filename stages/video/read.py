"""The source of every video pipeline: windows of a video file, in any order."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from fractions import Fraction
from itertools import pairwise
from typing import ClassVar, Literal, cast

import av
import numpy as np
from av import VideoFrame
from av.buffer import Buffer

from stages.base import Job, Source, TensorSpec, UserError
from stages.video.cuts import cut_score, thumbnail
from stages.video.decode import FrameIndex, FrameReader, video_stream
from stages.video.index import build_index
from stages.video.pixels import (
    Bytes,
    color_matrix_of,
    copy_to_row,
    matrix_code_of,
    pixel_format_of,
    planes_of_row,
    tagged_range_of,
)
from stages.window import Presentation, VideoFacts, WindowMeta


class ReadVideo(Source[Bytes, VideoFacts, WindowMeta]):
    """Reads any video file as windows of K + 1 frames; neighbouring windows share one frame.

    Frames keep their own samples where they are 8-bit YUV 4:2:0 or 4:4:4; other formats are
    converted once, with the matrix and range of the source.

    Args:
        pairs: K, the frame pairs of a window; a job's agreed `size` overrides it.
        threads: that decode.
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
        self._facts: VideoFacts | None = None
        self._reader: FrameReader | None = None
        self._pts: tuple[int, ...] | np.ndarray[tuple[int], np.dtype[np.int64]] = ()
        self._shared: tuple[int, Bytes] | None = None  # last frame of the last window: number, row

    def open(self, job: Job) -> VideoFacts:
        """Index the input and return its facts.

        Raises:
            UserError: no such file, no video in it, or fewer than two frames.
            BrokenFrameError: the file ends before its last frame.
        """
        self.close()
        _check_input(job.input)
        index = build_index(job.input, threads=self._threads)
        if index.pts.size < 2:
            raise UserError(
                f"{job.input}: {index.pts.size} frame(s); a frame between two needs two at least"
            )
        self._reader = FrameReader(job.input, index, threads=self._threads)
        self._pts = index.pts
        self._facts = _facts_of(job, index, self._reader.frame(0), job.size or self._pairs)
        return self._facts

    def specs(self, facts: VideoFacts) -> dict[str, TensorSpec]:
        """Return `frames` [K + 1, frame_bytes], planar YUV."""
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
        small = [thumbnail(planes_of_row(row, self._opened()[0])) for row in rows]
        return tuple(cut_score(a, b) >= self._cut_threshold for a, b in pairwise(small))


def _check_input(path: str) -> None:
    if not os.path.exists(path):
        raise UserError(f"{path}: no such file; give the path of a video file")
    if os.path.isdir(path):
        raise UserError(f"{path}: a folder; give the path of a video file")
    if not os.path.getsize(path):
        raise UserError(f"{path}: the file is empty; give the path of a video file")
    try:
        with av.open(path) as container:
            stream = video_stream(container)
            if stream is None:
                raise UserError(f"{path}: no video stream in it; give the path of a video file")
    except PermissionError as error:
        raise UserError(f"{path}: may not be read; check its permissions") from error
    except av.FFmpegError as error:
        raise UserError(
            f"{path}: not a video that can be read ({error.strerror}); give another file"
        ) from error


def _facts_of(job: Job, index: FrameIndex, frame: VideoFrame, pairs: int) -> VideoFacts:
    return VideoFacts(
        job=job,
        width=frame.width,
        height=frame.height,
        num_frames=index.pts.size,
        pairs_per_item=pairs,
        pixel_format=pixel_format_of(frame),
        color_matrix=color_matrix_of(frame),
        color_range=tagged_range_of(frame) or "limited",
        presentation=_presentation_of(job.input, index, frame),
    )


def _presentation_of(path: str, index: FrameIndex, frame: VideoFrame) -> Presentation:
    with av.open(path) as container:
        stream = video_stream(container)
        assert stream is not None, "checked before"
        rate, aspect = stream.average_rate, stream.sample_aspect_ratio or Fraction(0)
    gaps, span = np.diff(index.pts), int(index.pts[-1] - index.pts[0])
    seen_rate = (index.pts.size - 1) / (span * index.time_base)
    return Presentation(
        time_base=index.time_base.as_integer_ratio(),
        first_pts=int(index.pts[0]),
        tick=int(np.gcd.reduce(gaps)),
        last_duration=index.last_duration or int(gaps[-1]),
        frame_rate=(rate or seen_rate.limit_denominator(1001)).as_integer_ratio(),
        sample_aspect_ratio=aspect.as_integer_ratio(),
        display_matrix=_display_matrix_of(frame),
        primaries=frame.color_primaries,
        transfer=frame.color_trc,
        matrix=matrix_code_of(frame),
        tagged_range=tagged_range_of(frame),
    )


def _display_matrix_of(frame: VideoFrame) -> tuple[int, ...]:
    sides: Mapping[str, Buffer] = cast("Mapping[str, Buffer]", frame.side_data)
    data = sides.get("DISPLAYMATRIX")
    return () if data is None else tuple(np.frombuffer(bytes(data), np.int32).tolist())
