"""Finds every frame of a video file: by its packets where these can be trusted, else by decoding.

Packets cost a hundredth of decoding. They lie where a file hides frames (VP8), splits them (field
pairs), packs two into one packet (old AVI), starts with undecodable ones or plays only a part (edit
lists); so they are believed only after a look at both ends of the file.
"""

from __future__ import annotations

from array import array
from dataclasses import dataclass, field
from fractions import Fraction

import av
import numpy as np
from av.container import InputContainer
from av.packet import Packet
from av.video.stream import VideoStream
from numpy.typing import NDArray

from stages.video.decode import (
    BrokenFrameError,
    FrameIndex,
    FrameReader,
    decode,
    open_input,
    video_stream,
)

_CHECKED_FRAMES = 48  # decoded at the start to compare; covers any reordering, and two GOPs of many
_CHECKED_TAIL = 300  # at most so many frames behind the last keyframe; a longer GOP is believed
_MAX_REORDERING = 32  # frames; H.264 and HEVC allow 16. More means that timestamps jump
_PROGRESSIVE = (0, 1)  # field orders: unknown, progressive; others may have a packet per field
_HIDING_CODECS = frozenset({"vp8"})  # its invisible frames are packets with times of their own
_DEFAULT_RATE = Fraction(25)


@dataclass(slots=True)
class _Packets:
    """What demuxing says of a video stream."""

    pts: array[int] = field(default_factory=lambda: array("q"))
    dts: array[int] = field(default_factory=lambda: array("q"))
    keyframes: array[int] = field(default_factory=lambda: array("q"))
    count: int = 0
    is_plain: bool = True  # one shown frame in every packet, as far as packets tell
    last_duration: int = 0  # of the packet that is shown last

    def add(self, packet: Packet[VideoStream]) -> None:
        self.count += 1
        if packet.dts is not None:
            self.dts.append(packet.dts)
        if packet.pts is None or packet.size == 0 or packet.is_discard:
            self.is_plain = False
            return
        if not self.pts or packet.pts >= max(self.pts[-_MAX_REORDERING:]):
            self.last_duration = packet.duration or 0
        self.pts.append(packet.pts)
        if packet.is_keyframe:
            self.keyframes.append(packet.pts)


def build_index(path: str, *, threads: int) -> FrameIndex:
    """Return the index of the first video stream of `path`.

    Raises:
        BrokenFrameError: the file ends early, or is damaged where only decoding could index it.
    """
    with open_input(path, threads=threads) as container:
        stream = video_stream(container)
        assert stream is not None, "the caller has checked that there is video"
        packets, nominal = _demux(container, stream), _nominal_ticks(stream)
        if "mp4" in container.format.name and packets.count < len(stream.index_entries):
            why = "the file ends before it; is it cut short?"
            raise BrokenFrameError(path, packets.count, len(stream.index_entries), why)
        by_packets = _index_by_packets(stream, packets)
    if by_packets is not None and _is_true(path, by_packets, threads):
        return by_packets
    return _index_by_frames(path, packets, nominal, threads)


def _demux(container: InputContainer, stream: VideoStream) -> _Packets:
    packets = _Packets()
    for packet in container.demux(stream):
        if packet.size or packet.dts is not None:  # else the flush at the end
            packets.add(packet)
    return packets


def _index_by_packets(stream: VideoStream, packets: _Packets) -> FrameIndex | None:
    context = stream.codec_context
    if not packets.is_plain or context.name in _HIDING_CODECS:
        return None
    if context.field_order not in _PROGRESSIVE or stream.time_base is None or not packets.count:
        return None
    stored = np.array(packets.pts, np.int64)
    order = np.argsort(stored, kind="stable")
    if np.abs(order - np.arange(order.size)).max() > _MAX_REORDERING:
        return None
    pts = stored[order]
    if not packets.keyframes or np.any(np.diff(pts) <= 0):
        return None
    keyframes = np.sort(np.array(packets.keyframes, np.int64))
    return FrameIndex(pts, keyframes, stream.time_base, packets.last_duration)


def _is_true(path: str, index: FrameIndex, threads: int) -> bool:
    """Decode both ends of the file; seeking to its last keyframe is tried with it."""
    total = index.pts.size
    tail = int(np.searchsorted(index.pts, index.keyframes[-1]))
    numbers = list(range(min(_CHECKED_FRAMES, total)))
    if total - tail <= _CHECKED_TAIL:
        numbers += range(max(tail, len(numbers)), total)
    reader = FrameReader(path, index, threads=threads)
    try:
        for number in numbers:
            reader.frame(number)
    except BrokenFrameError:
        return False
    finally:
        reader.close()
    return True


def _index_by_frames(path: str, packets: _Packets, nominal: int, threads: int) -> FrameIndex:
    """Decode everything; the times of frames that have none are made up, evenly."""
    times: array[int] = array("q")
    duration = missing = 0
    with open_input(path, threads=threads) as container:
        stream = video_stream(container)
        assert stream is not None, "it was there a moment ago"
        time_base = stream.time_base or Fraction(1, 1000)
        try:
            for frame in decode(container, stream):
                missing += frame.pts is None
                after = times[-1] + nominal if times else 0
                times.append(after if frame.pts is None else frame.pts)
                duration = frame.duration
        except av.FFmpegError as error:
            raise BrokenFrameError(path, len(times), 0, str(error)) from error
    pts = np.array(times, np.int64)
    if missing and missing == pts.size == np.unique(packets.dts).size:
        pts = np.sort(np.array(packets.dts, np.int64))  # frames come out as evenly as they go in
    return FrameIndex(_increasing(pts, nominal), np.empty(0, np.int64), time_base, duration)


def _increasing(pts: NDArray[np.int64], nominal: int) -> NDArray[np.int64]:
    """Return `pts` with each step that is none, or goes back, made one of `nominal` ticks."""
    steps = np.diff(pts)
    return np.concatenate([pts[:1], pts[:1] + np.cumsum(np.where(steps > 0, steps, nominal))])


def _nominal_ticks(stream: VideoStream) -> int:
    rate = stream.average_rate or stream.guessed_rate or _DEFAULT_RATE
    return max(1, round(1 / (rate * (stream.time_base or Fraction(1, 1000)))))
