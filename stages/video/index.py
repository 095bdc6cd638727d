"""Finds every frame of a video file: by its packets where these can be trusted, else by decoding.

Packets cost a hundredth of decoding. They lie where a file hides frames (VP8), splits them (field
pairs), packs two into one packet (old AVI), starts with undecodable ones or plays only a part (edit
lists); so they are believed only after a look at both ends of the file.
"""

from __future__ import annotations

from array import array
from dataclasses import dataclass, field
from fractions import Fraction

import numpy as np
from av.container import InputContainer
from av.packet import Packet
from av.stream import Stream
from av.video.stream import VideoStream
from numpy.typing import NDArray

from stages.video.damage import Reading
from stages.video.decode import (
    BrokenFrameError,
    FrameIndex,
    FrameReader,
    decode,
    demux,
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

    def add(self, packet: Packet[Stream]) -> None:
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


def build_index(path: str, *, threads: int) -> tuple[FrameIndex, Reading]:
    """Return the index of the first video stream of `path`, and what reading it brought up."""
    reading = Reading(path)
    with open_input(path, threads=threads) as container:
        stream = video_stream(container)
        assert stream is not None, "the caller has checked that there is video"
        with reading.watch(container):
            packets = _demux(container, stream, reading)
        nominal = _nominal_ticks(stream)
        reading.compare(container, stream, packets.count)
        by_packets = _index_by_packets(stream, packets)
    if by_packets is not None and _is_true(path, by_packets, threads):
        return by_packets, reading
    return _index_by_frames(path, packets, nominal, threads, reading), reading


def _demux(container: InputContainer, stream: VideoStream, reading: Reading) -> _Packets:
    packets = _Packets()
    torn: list[Packet[Stream]] = []
    for packet in demux(container, [stream], reading.errors):
        if not packet.size and packet.dts is None:
            continue  # the flush at the end
        if packet.is_corrupt:
            torn.append(packet)
            continue
        reading.num_corrupt += len(torn)
        for waiting in (*torn, packet):
            packets.add(waiting)
        torn.clear()
    reading.ends_torn = bool(torn)  # and what the end of the file has torn is left out
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
    head = min(_CHECKED_FRAMES, total)
    tail = int(np.searchsorted(index.pts, index.keyframes[-1]))
    parts = [range(head)]
    if total - tail <= _CHECKED_TAIL:
        parts.append(range(max(tail, head), total))
    reader = FrameReader(path, index, threads=threads)
    try:
        return all(_is_part_true(reader, numbers) for numbers in parts)
    finally:
        reader.close()


def _is_part_true(reader: FrameReader, numbers: range) -> bool:
    """Decode these frames, up to the first damaged one: that says nothing against the index."""
    for number in numbers:
        try:
            reader.frame(number)
        except BrokenFrameError as error:
            return error.is_damage
    return True


@dataclass(slots=True)
class _Decoded:
    """What decoding the whole stream brought up."""

    time_base: Fraction
    times: array[int] = field(default_factory=lambda: array("q"))
    num_timeless: int = 0
    num_torn: int = 0  # last frames that are not whole
    last_duration: int = 0
    errors: list[str] = field(default_factory=list)
    has_fault: bool = False  # of any kind, wherever it lies


def _index_by_frames(
    path: str, packets: _Packets, nominal: int, threads: int, reading: Reading
) -> FrameIndex:
    """Decode everything; the times of frames that have none are made up, evenly."""
    decoded = _decode_all(path, nominal, threads)
    if decoded.has_fault and threads > 1:
        decoded = _decode_all(path, nominal, 1)  # several lose whole frames at the end
    times, errors = decoded.times, decoded.errors
    reading.num_undecodable = len(errors)
    reading.ends_torn = reading.ends_torn or decoded.num_torn > 0
    pts = np.array(times[: len(times) - decoded.num_torn], np.int64)
    if decoded.num_timeless and decoded.num_timeless == pts.size == np.unique(packets.dts).size:
        pts = np.sort(np.array(packets.dts, np.int64))  # frames come out as evenly as they go in
    no_keyframes = np.empty(0, np.int64)
    pts = _increasing(pts, nominal)
    return FrameIndex(pts, no_keyframes, decoded.time_base, decoded.last_duration)


def _decode_all(path: str, nominal: int, threads: int) -> _Decoded:
    with open_input(path, threads=threads) as container:
        stream = video_stream(container)
        assert stream is not None, "it was there a moment ago"
        found = _Decoded(stream.time_base or Fraction(1, 1000))
        times, errors = found.times, found.errors
        for frame in decode(container, stream, errors):
            found.has_fault |= bool(errors) or frame.is_corrupt
            if not times:
                errors.clear()  # a stream may begin with what leans on something before it
            found.num_timeless += frame.pts is None
            after = times[-1] + nominal if times else 0
            times.append(after if frame.pts is None else frame.pts)
            found.num_torn = found.num_torn + 1 if frame.is_corrupt else 0
            found.last_duration = frame.duration
        found.has_fault |= bool(errors)
    return found


def _increasing(pts: NDArray[np.int64], nominal: int) -> NDArray[np.int64]:
    """Return `pts` with each step that is none, or goes back, made one of `nominal` ticks."""
    steps = np.diff(pts)
    return np.concatenate([pts[:1], pts[:1] + np.cumsum(np.where(steps > 0, steps, nominal))])


def _nominal_ticks(stream: VideoStream) -> int:
    rate = stream.average_rate or stream.guessed_rate or _DEFAULT_RATE
    return max(1, round(1 / (rate * (stream.time_base or Fraction(1, 1000)))))
