"""Frames of a video file by number, in any order. Knows no job, no window and no pixels."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction

import av
import numpy as np
from av import VideoFrame
from av.codec.context import ThreadType
from av.container import InputContainer
from av.packet import Packet
from av.stream import Disposition, Stream
from av.video.codeccontext import VideoCodecContext
from av.video.stream import VideoStream
from numpy.typing import NDArray

_KEYFRAMES_BACK = (0, 1, 3, 8)  # where to start instead, if a seek landed too late
_MAX_ERRORS_IN_A_ROW = 8  # of a demuxer, before what lies behind is given up
_ALPHA_DECODERS = {"vp8": "libvpx", "vp9": "libvpx-vp9"}  # FFmpeg's own read colours alone
# Whatever a file is called, FFmpeg looks into it: a playlist or a script in place of a video would
# have it read other files, or the network, into the output.
_NAMING_OTHERS = {
    *("avisynth", "concat", "dash", "hls", "image2", "imf", "lavfi", "rtp", "rtsp", "sap", "sdp"),
    *("vapoursynth", "vobsub", "webm_dash_manifest"),
}
_THIS_FILE_ALONE = {
    "format_whitelist": ",".join(sorted(av.formats_available - _NAMING_OTHERS)),
    "protocol_whitelist": "file",
}


class BrokenFrameError(ValueError):
    """A frame that the file promises cannot be decoded: it is damaged, or the file ends early."""

    def __init__(
        self, path: str, number: int, *, total: int, seconds: float, why: str, is_damage: bool
    ) -> None:
        super().__init__(
            f"{path}: frame {number} of {total}, at {seconds:.2f} s, cannot be decoded: {why}"
        )
        self.is_damage = is_damage  # the decoder said so; else the frame just did not come


@dataclass(frozen=True, slots=True)
class FrameIndex:
    """Where every frame lies in time, and where decoding may start."""

    pts: NDArray[np.int64]  # in order of presentation, strictly increasing
    keyframes: NDArray[np.int64]  # pts to seek to; none: frames are counted from the file's start
    time_base: Fraction
    last_duration: int  # ticks that the last frame is shown


def open_file(path: str) -> InputContainer:
    """Open a file, and no other that it may name.

    Of a tag that is no UTF-8, what cannot be read becomes U+FFFD.
    """
    return av.open(path, metadata_errors="replace", container_options=_THIS_FILE_ALONE)


def open_input(path: str, *, threads: int) -> InputContainer:
    """Open a file whose video is decoded by `threads` threads."""
    container = open_file(path)
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


def demux(
    container: InputContainer, streams: Sequence[Stream], errors: list[str]
) -> Iterator[Packet[Stream]]:
    """Yield the packets of `streams`, also those behind damage, which is added to `errors`."""
    in_a_row = 0
    while in_a_row < _MAX_ERRORS_IN_A_ROW:
        try:
            for packet in container.demux(*streams):
                in_a_row = 0
                yield packet
        except (av.FFmpegError, IndexError) as error:  # IndexError: a track that was not there
            errors.append(_reason(error))
            in_a_row += 1
        else:
            return


def decode(
    container: InputContainer,
    stream: VideoStream,
    errors: list[str],
    *,
    sought: int | None = None,
) -> Iterator[VideoFrame]:
    """Yield frames from the first keyframe on; what lies before it cannot be decoded.

    Nothing is yielded if that keyframe lies behind `sought`: frames shown before a keyframe and
    stored behind it (an open GOP) would come out, made of references that are not there. What
    cannot be decoded is added to `errors`, and decoding goes on behind it.
    """
    decoder, has_started = _decoder_of(stream), False
    for packet in demux(container, [stream], errors):
        if packet.size == 0:
            continue  # a dropped frame in an AVI; the decoder would take it for the end
        if not has_started and packet.is_keyframe:
            if sought is not None and (packet.pts is None or packet.pts > sought):
                return
            has_started = True
        if has_started:
            yield from _decoded(decoder, packet, errors)
    if has_started:
        yield from _decoded(decoder, None, errors)


def first_frame(path: str) -> VideoFrame | None:
    """Return the first frame without a fault, or None if there is none."""
    with open_input(path, threads=1) as container:
        stream = video_stream(container)
        assert stream is not None, "the caller has checked that there is video"
        return next((f for f in decode(container, stream, []) if not f.is_corrupt), None)


def has_hidden_alpha(stream: VideoStream) -> bool:
    """Return whether the alpha of VP8 and VP9 lies beside the packets: few decoders look there."""
    return stream.codec_context.name in _ALPHA_DECODERS and stream.metadata.get("alpha_mode") == "1"


def _decoder_of(stream: VideoStream) -> VideoCodecContext:
    """Return what decodes `stream`, with its alpha if this FFmpeg can."""
    if not has_hidden_alpha(stream):
        return stream.codec_context
    try:
        decoder = av.CodecContext.create(_ALPHA_DECODERS[stream.codec_context.name], "r")
    except av.codec.codec.UnknownCodecError:
        return stream.codec_context  # a source says that alpha is not there
    assert isinstance(decoder, VideoCodecContext), "VP8 and VP9 are video"
    decoder.thread_count = stream.codec_context.thread_count
    return decoder


def _decoded(
    decoder: VideoCodecContext, packet: Packet[Stream] | None, errors: list[str]
) -> Sequence[VideoFrame]:
    try:
        return decoder.decode(packet)  # None empties the decoder
    except av.FFmpegError as error:
        errors.append(_reason(error))
        return ()


def _reason(error: Exception) -> str:
    if isinstance(error, IndexError):
        return "a track appears on the way"
    return getattr(error, "strerror", None) or str(error)


class FrameReader:
    """Decodes frame after frame, and seeks where the next one asked for is not close ahead.

    At the first fault it starts over with one thread, and stays with it: several tell of a fault
    late, and at the end of a file they lose whole frames with it.
    """

    def __init__(self, path: str, index: FrameIndex, *, threads: int) -> None:
        self._path, self._index, self._threads = path, index, threads
        self._container: InputContainer | None = None
        self._frames: Iterator[VideoFrame] = iter(())
        self._next: int | None = None  # what `_frames` yields next; None: unknown
        self._errors: list[str] = []  # of demuxer and decoder, since `_frames` began
        self._num_whole = 0  # frames without a fault that came since then

    def frame(self, number: int) -> VideoFrame:
        """Return frame `number`, counted from 0 in order of presentation.

        Raises:
            BrokenFrameError: it cannot be decoded, or the decoder had to make parts of it up.
        """
        try:
            return self._frame(number)
        except BrokenFrameError:
            if self._threads == 1:
                raise
        self.close()
        self._threads = 1
        return self._frame(number)

    def close(self) -> None:
        """Close the file."""
        self._next, self._frames = None, iter(())
        if self._container is not None:
            self._container.close()
            self._container = None

    def _frame(self, number: int) -> VideoFrame:
        if self._next is not None and self._is_close_ahead(number):
            return self._advance(number)
        starts = self._starts(number)
        for start in starts[:-1]:
            self._restart(start)
            try:
                return self._advance(number)
            except BrokenFrameError as error:
                if error.is_damage and self._num_whole:
                    raise  # it came this far from here, so it would from any other start
                continue  # the seek landed behind it, or on a keyframe that leans on earlier ones
        self._restart(starts[-1])
        return self._advance(number)

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
        self._errors, self._num_whole = [], 0
        self._frames = decode(self._container, stream, self._errors, sought=pts)
        self._next = 0 if pts is None else None

    def _advance(self, number: int) -> VideoFrame:
        expected = self._next
        self._next = None  # unknown, should anything below fail
        for frame in self._frames:
            if self._errors and self._threads > 1:
                raise self._broken(number, "")
            position = expected if not self._index.keyframes.size else self._position(frame)
            if position is None or position > number:
                raise self._broken(number, "the decoder skipped it")
            if position == number:
                if frame.is_corrupt:
                    raise self._broken(number, "parts of it are lost", is_damage=True)
                self._num_whole += 1
                self._next = number + 1
                return frame
            self._num_whole += not frame.is_corrupt
            expected = position + 1
        raise self._broken(number, "the file ends before it")

    def _position(self, frame: VideoFrame) -> int | None:
        if frame.pts is None:
            return None
        place = int(np.searchsorted(self._index.pts, frame.pts))
        is_known = place < self._index.pts.size and self._index.pts[place] == frame.pts
        return place if is_known else None

    def _broken(self, number: int, why: str, *, is_damage: bool = False) -> BrokenFrameError:
        ticks = int(self._index.pts[number] - self._index.pts[0])
        return BrokenFrameError(
            self._path,
            number,
            total=self._index.pts.size,
            seconds=float(ticks * self._index.time_base),
            why=self._errors[-1] if self._errors else why,
            is_damage=is_damage or bool(self._errors),
        )
