"""The sink of every video pipeline: segments first, the whole file at the end."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar, Literal

from stages.base import Durable, Item, Sink, UserError
from stages.output import is_published
from stages.video.containers import check_container, container_name
from stages.video.encode import (
    PART_SUFFIX,
    SEGMENT_SUFFIX,
    Encoding,
    SegmentWriter,
    check_encoding,
    sync,
)
from stages.video.join import join
from stages.video.pixels import Bytes, with_mean_alpha
from stages.window import VideoFacts, WindowMeta

_FOLDER = "segments"


class WriteVideo(Sink[Bytes, VideoFacts, WindowMeta]):
    """Writes the doubled video: every source frame, and between two the new one, in the middle.

    Segments of `segment_windows` windows are encoded apart, each by a fresh encoder with a fixed
    number of threads, so the file is the same whoever writes them. The source's sound, subtitles,
    tags, rotation and colours are kept; so are its bits a sample, its chroma, its alpha and what it
    says of its brightness, where the codec can hold them: what it cannot is one of the `warnings`.
    Alpha between two frames is their mean.

    A failed window leaves its times to the frame before it: of one that a model failed the source's
    frames are written, of one that could not be read nothing, not even what it shares with others.
    So a video whose first window could not be read starts late, and ends when it always did.

    Args:
        codec: name of an FFmpeg encoder.
        crf: constant quality, 0 is lossless with libx264; codecs without it get the constant
            quantizer crf / 6, but for ProRes, whose profiles say it.
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
        self.warnings: list[str] = []  # what could not be kept
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
        output = Path(facts.job.output)
        self._encoding, self.warnings = check_encoding(
            facts, self._encoding, container=container_name(output)
        )
        check_container(output, facts, self._encoding)
        self._facts = facts
        self._folder().mkdir(mode=0o700, parents=True, exist_ok=True)

    def write(
        self, item: Item[WindowMeta], inputs: Mapping[str, Bytes], meta: WindowMeta | None
    ) -> int:
        """Encode one window; of a failed one only what there is. Return the pairs done."""
        self._take_up(item.index)
        is_last = item.index == self._opened().num_windows - 1
        pairs_done = 0
        if meta is not None:
            pairs_done = self._put_pairs(inputs, meta, has_failed=bool(item.failed))
            if is_last:
                end = meta.num_pairs
                self._put(inputs["frames"][end], meta, end, end)
        if is_last or (item.index + 1) % self._segment_windows == 0:
            self._close_segment()
        return pairs_done

    def commit(self) -> list[Durable]:
        """Return the segments that were closed since the last call."""
        durable, self._durable = self._durable, []
        return durable

    def finish(self, items: Sequence[int]) -> None:
        """Join the segments of `items` into the output; then delete them, and what is left over.

        Also again, after a process was killed at it.

        Raises:
            UserError: a file appeared under the output's name meanwhile, or nothing was written.
            FileNotFoundError: a segment is gone.
        """
        facts = self._opened()
        _check_output(facts)
        numbers = sorted({item // self._segment_windows for item in items})
        every = [self._path(number) for number in numbers]
        if not _is_joined(facts, every):
            segments = [segment for segment in every if segment.stat().st_size]
            if not segments:
                none = f"{facts.job.input}: not one frame could be read; nothing is written"
                raise UserError(none)
            self.warnings += join(segments, facts, Path(facts.job.output))
        for segment in (*every, *self._folder().glob(f"*{PART_SUFFIX}")):  # of killed writers
            segment.unlink(missing_ok=True)

    def close(self) -> None:
        """Give up an unfinished segment."""
        segment, self._segment, self._items = self._segment, None, []
        self._counts = dict.fromkeys(self._counts, 0)
        if segment is not None:
            segment.discard()

    def _opened(self) -> VideoFacts:
        assert self._facts is not None, "open comes first"
        return self._facts

    def _folder(self) -> Path:
        return Path(self._opened().job.work_dir) / _FOLDER

    def _path(self, number: int) -> Path:
        return self._folder() / f"{number:06}{SEGMENT_SUFFIX}"

    def _take_up(self, index: int) -> None:
        """Note that window `index` comes: the next of its segment, or the first, also again."""
        if index % self._segment_windows == 0:
            self.close()
        elif not self._items or self._items[-1] != index - 1:
            raise ValueError(f"window {index} does not follow {self._items[-1:]} of its segment")
        self._items.append(index)

    def _put_pairs(self, inputs: Mapping[str, Bytes], meta: WindowMeta, *, has_failed: bool) -> int:
        frames, facts = inputs["frames"], self._opened()
        for pair, is_cut in enumerate(meta.cuts):
            self._put(frames[pair], meta, pair, pair)
            if has_failed:
                continue
            row = frames[pair]
            if not is_cut:
                middle = inputs["middle"][pair]
                row = with_mean_alpha(middle, frames[pair], frames[pair + 1], facts)
            self._put(row, meta, pair, pair + 1)
        if has_failed:
            return 0
        self._counts["frame pairs"] += meta.num_pairs
        self._counts["scene cuts"] += sum(meta.cuts)
        return meta.num_pairs

    def _put(self, row: Bytes, meta: WindowMeta, earlier: int, later: int) -> None:
        if self._segment is None:
            path = self._path(self._items[0] // self._segment_windows)
            self._segment = SegmentWriter(path, self._opened(), self._encoding)
        self._segment.put(row, self._half_ticks(meta, earlier, later))

    def _half_ticks(self, meta: WindowMeta, earlier: int, later: int) -> int:
        """Return the middle of the times of two frames after the start, in halves of a tick."""
        first = self._opened().presentation.first_pts
        return meta.pts[earlier] + meta.pts[later] - 2 * first

    def _close_segment(self) -> None:
        """Make the segment durable; one without a frame is an empty file."""
        path = self._path(self._items[0] // self._segment_windows)
        if self._segment is not None:
            self._segment.finish()
        else:
            path.touch(mode=0o644)
            os.truncate(path, 0)
            sync(path)
            sync(path.parent)
        self._durable.append(
            Durable(
                items=tuple(self._items),
                files=(f"{_FOLDER}/{path.name}",),
                counts=dict(self._counts),
            )
        )
        self._segment = None
        self.close()


def _work_dir(facts: VideoFacts) -> Path:
    return Path(facts.job.work_dir)


def _is_joined(facts: VideoFacts, segments: Sequence[Path]) -> bool:
    """Whether the output is there, made of these segments, of which some may be gone."""
    output = Path(facts.job.output)
    if not is_published(output, _work_dir(facts)):
        return False
    made = output.stat().st_mtime_ns
    return all(not one.exists() or one.stat().st_mtime_ns <= made for one in segments)


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
    if output.exists() and not facts.job.overwrite and not is_published(output, _work_dir(facts)):
        raise UserError(f"{output}: exists already; use --overwrite or another name")
