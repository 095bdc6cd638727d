"""The sink of every video pipeline: segments first, the whole file at the end."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar, Literal

from stages.base import Durable, Item, Sink, UserError
from stages.video.containers import check_container
from stages.video.encode import SEGMENT_SUFFIX, Encoding, SegmentWriter, check_encoding
from stages.video.join import join
from stages.video.pixels import Bytes
from stages.window import VideoFacts, WindowMeta

_FOLDER = "segments"


class WriteVideo(Sink[Bytes, VideoFacts, WindowMeta]):
    """Writes the doubled video: every source frame, and between two the new one, in the middle.

    Segments of `segment_windows` windows are encoded apart, each by a fresh encoder with a fixed
    number of threads, so the file is the same whoever writes them. The source's sound, subtitles,
    tags, rotation and colours are kept.

    Args:
        codec: name of an FFmpeg encoder.
        crf: constant quality, 0 is lossless with libx264; codecs without it get the constant
            quantizer crf / 6.
        preset: speed of the encoder, where it has presets.
        threads: of an encoder; the bytes depend on it.
        segment_windows: windows of a segment.
    """

    library: ClassVar[Literal["numpy", "torch"]] = "numpy"
    facts_type: ClassVar[type] = VideoFacts
    meta_type: ClassVar[type] = WindowMeta
    reads: ClassVar[tuple[str, ...]] = ("frames", "middle")

    def __init__(
        self,
        *,
        codec: str = "libx264",
        crf: int = 16,
        preset: str = "veryfast",
        threads: int = 2,
        segment_windows: int = 4,
    ) -> None:
        if threads < 1:
            raise UserError(f"threads = {threads}: at least 1; the bytes written depend on it")
        if segment_windows < 1:
            raise UserError(f"segment_windows = {segment_windows}: at least 1")
        self.warnings: list[str] = []  # what `finish` could not keep
        self._encoding = Encoding(codec=codec, crf=crf, preset=preset, threads=threads)
        self._segment_windows = segment_windows
        self._facts: VideoFacts | None = None
        self._segment: SegmentWriter | None = None
        self._items: list[int] = []  # in the open segment
        self._counts = {"frame pairs": 0, "scene cuts": 0}  # likewise
        self._durable: list[Durable] = []

    @property
    def items_per_segment(self) -> int:
        """Windows of a segment."""
        return self._segment_windows

    def open(self, facts: VideoFacts) -> None:
        """Check output and encoder, make the folder of the segments.

        Raises:
            UserError: the output cannot be written there or so, or the encoder refuses.
        """
        self.close()
        _check_output(facts)
        check_encoding(facts, self._encoding)
        check_container(Path(facts.job.output), facts, self._encoding)
        self._facts, self.warnings = facts, []
        self._folder().mkdir(parents=True, exist_ok=True)

    def write(self, item: Item[WindowMeta], inputs: Mapping[str, Bytes], meta: WindowMeta) -> int:
        """Encode one window; of a failed one only the source's frames. Return the pairs done."""
        segment = self._segment_of(item.index)
        is_last = item.index == self._opened().num_windows - 1
        pairs_done = 0 if item.failed else meta.num_pairs
        self._items.append(item.index)
        for pair in range(meta.num_pairs):
            segment.put(inputs["frames"][pair], self._half_ticks(meta, pair, pair))
            if not item.failed:
                row = inputs["frames"] if meta.cuts[pair] else inputs["middle"]
                segment.put(row[pair], self._half_ticks(meta, pair, pair + 1))
        if is_last:
            end = meta.num_pairs
            segment.put(inputs["frames"][end], self._half_ticks(meta, end, end))
        self._counts["frame pairs"] += pairs_done
        self._counts["scene cuts"] += 0 if item.failed else sum(meta.cuts)
        if is_last or (item.index + 1) % self._segment_windows == 0:
            self._close_segment(segment)
        return pairs_done

    def commit(self) -> list[Durable]:
        """Return the segments that were closed since the last call."""
        durable, self._durable = self._durable, []
        return durable

    def finish(self, items: Sequence[int]) -> None:
        """Join the segments of `items` into the output, then delete them.

        Raises:
            UserError: a file appeared under the output's name meanwhile.
            FileNotFoundError: a segment is gone.
        """
        facts = self._opened()
        _check_output(facts)
        numbers = sorted({item // self._segment_windows for item in items})
        segments = [self._path(number) for number in numbers]
        self.warnings = join(segments, facts, Path(facts.job.output))
        for segment in segments:
            segment.unlink()

    def close(self) -> None:
        """Give up an unfinished segment."""
        if self._segment is not None:
            self._segment.discard()
        self._segment, self._items = None, []
        self._counts = dict.fromkeys(self._counts, 0)

    def _opened(self) -> VideoFacts:
        assert self._facts is not None, "open comes first"
        return self._facts

    def _folder(self) -> Path:
        return Path(self._opened().job.work_dir) / _FOLDER

    def _path(self, number: int) -> Path:
        return self._folder() / f"{number:06}{SEGMENT_SUFFIX}"

    def _segment_of(self, index: int) -> SegmentWriter:
        """Return the open segment, or a new one for its first window, also if it comes again."""
        number, place = divmod(index, self._segment_windows)
        if place == 0:
            self.close()
            self._segment = SegmentWriter(self._path(number), self._opened(), self._encoding)
        elif self._segment is None or self._items[-1] != index - 1:
            raise ValueError(f"window {index} does not follow {self._items[-1:]} of its segment")
        return self._segment

    def _half_ticks(self, meta: WindowMeta, earlier: int, later: int) -> int:
        """Return the middle of the times of two frames after the start, in halves of a tick."""
        first = self._opened().presentation.first_pts
        return meta.pts[earlier] + meta.pts[later] - 2 * first

    def _close_segment(self, segment: SegmentWriter) -> None:
        segment.finish()
        name = self._path(self._items[0] // self._segment_windows).name
        self._durable.append(
            Durable(
                items=tuple(self._items), files=(f"{_FOLDER}/{name}",), counts=dict(self._counts)
            )
        )
        self._segment = None
        self.close()


def _check_output(facts: VideoFacts) -> None:
    output = Path(facts.job.output)
    if not output.parent.is_dir():
        raise UserError(f"{output}: no folder {output.parent}; make it first")
    if not os.access(output.parent, os.W_OK):
        raise UserError(f"{output}: may not write in {output.parent}; choose another folder")
    if output.is_dir():
        raise UserError(f"{output}: a folder; name a file, such as {output / 'out.mp4'}")
    if output.exists() and output.samefile(facts.job.input):
        raise UserError(f"{output}: output and input are one file; choose another output")
    if output.exists() and not facts.job.overwrite:
        raise UserError(f"{output}: exists already; use --overwrite or another name")
