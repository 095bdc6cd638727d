"""Frames of a video file by number, in any order. Knows no job, no window and no pixels."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction

import av
import numpy as np
from av import VideoFrame
from av.codec.context import ThreadType
from av.container import InputContainer
from av.stream import Disposition
from av.video.stream import VideoStream
from numpy.typing import NDArray

_KEYFRAMES_BACK = (0, 1, 3, 8)  # where to start instead, if a seek landed too late


class BrokenFrameError(ValueError):
    """A frame that the file promises cannot be decoded: it is damaged, or the file ends early."""

    def __init__(self, path: str, number: int, total: int, why: str) -> None:
        of = f" of {total}" if total else ""
        super().__init__(f"{path}: frame {number}{of} cannot be decoded: {why}")
        self.number = number


@dataclass(frozen=True, slots=True)
class FrameIndex:
    """Where every frame lies in time, and where decoding may start."""

    pts: NDArray[np.int64]  # in order of presentation, strictly increasing
    keyframes: NDArray[np.int64]  # pts to seek to; none: frames are counted from the file's start
    time_base: Fraction
    last_duration: int  # ticks that the last frame is shown


def open_input(path: str, *, threads: int) -> InputContainer:
    """Open a file whose video is decoded by `threads` threads."""
    container = av.open(path)
    stream = video_stream(container)
    if stream is not None:
        stream.codec_context.thread_count = threads
        stream.codec_context.thread_type = ThreadType.AUTO
    return container


def video_stream(container: InputContainer) -> VideoStream | None:
    """Return the first video stream that is no cover picture, or None."""
    for stream in container.streams.video:
        if not stream.disposition & Disposition.attached_pic and stream.codec_context is not None:
            return stream
    return None


def decode(
    container: InputContainer, stream: VideoStream, *, sought: int | None = None
) -> Iterator[VideoFrame]:
    """Yield frames from the first keyframe on; what lies before it cannot be decoded.

    Nothing is yielded if that keyframe lies behind `sought`: frames shown before a keyframe and
    stored behind it (an open GOP) would come out, made of references that are not there.
    """
    has_started = False
    for packet in container.demux(stream):
        is_flush = packet.size == 0 and packet.dts is None
        if packet.size == 0 and not is_flush:
            continue  # a dropped frame in an AVI; the decoder would take it for the end
        if not has_started and packet.is_keyframe:
            if sought is not None and (packet.pts is None or packet.pts > sought):
                return
            has_started = True
        if has_started:
            yield from packet.decode()


class FrameReader:
    """Decodes frame after frame, and seeks where the next one asked for is not close ahead."""

    def __init__(self, path: str, index: FrameIndex, *, threads: int) -> None:
        self._path, self._index, self._threads = path, index, threads
        self._container: InputContainer | None = None
        self._frames: Iterator[VideoFrame] = iter(())
        self._next: int | None = None  # what `_frames` yields next; None: unknown

    def frame(self, number: int) -> VideoFrame:
        """Return frame `number`, counted from 0 in order of presentation.

        Raises:
            BrokenFrameError: it cannot be decoded.
        """
        if self._next is not None and self._is_close_ahead(number):
            return self._advance(number)
        starts = self._starts(number)
        for start in starts[:-1]:
            self._restart(start)
            try:
                return self._advance(number)
            except BrokenFrameError:
                continue  # the seek landed behind it, or on a keyframe that leans on earlier ones
        self._restart(starts[-1])
        return self._advance(number)

    def close(self) -> None:
        """Close the file."""
        self._next, self._frames = None, iter(())
        if self._container is not None:
            self._container.close()
            self._container = None

    def _is_close_ahead(self, number: int) -> bool:
        if self._next is None or number < self._next:
            return False
        if number == self._next or not self._index.keyframes.size:
            return True
        here, there = np.searchsorted(
            self._index.keyframes, self._index.pts[[self._next, number]], side="right"
        )
        return bool(here == there)  # no keyframe lies between, so seeking would gain nothing

    def _starts(self, number: int) -> list[int | None]:
        """Return pts to start at, best first; None is the start of the file, always right."""
        keyframes = self._index.keyframes
        last = int(np.searchsorted(keyframes, self._index.pts[number], side="right")) - 1
        places = [last - back for back in _KEYFRAMES_BACK if last - back > 0]
        return [int(keyframes[place]) for place in places] + [None]

    def _restart(self, pts: int | None) -> None:
        if pts is None:
            self.close()
        if self._container is None:
            self._container = open_input(self._path, threads=self._threads)
        stream = video_stream(self._container)
        assert stream is not None, "the file had a video stream when it was indexed"
        if pts is not None:
            self._container.seek(pts, stream=stream)
        self._frames = decode(self._container, stream, sought=pts)
        self._next = 0 if pts is None else None

    def _advance(self, number: int) -> VideoFrame:
        expected = self._next
        self._next = None  # unknown, should anything below fail
        try:
            for frame in self._frames:
                position = expected if not self._index.keyframes.size else self._position(frame)
                if position is None or position > number:
                    raise self._broken(number, "the decoder skipped it")
                if position == number:
                    self._next = number + 1
                    return frame
                expected = position + 1
        except (av.FFmpegError, OSError) as error:
            raise self._broken(number, str(error)) from error
        raise self._broken(number, "the file ends before it")

    def _position(self, frame: VideoFrame) -> int | None:
        if frame.pts is None:
            return None
        place = int(np.searchsorted(self._index.pts, frame.pts))
        is_known = place < self._index.pts.size and self._index.pts[place] == frame.pts
        return place if is_known else None

    def _broken(self, number: int, why: str) -> BrokenFrameError:
        return BrokenFrameError(self._path, number, self._index.pts.size, why)
