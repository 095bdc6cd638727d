"""Copies sound, subtitles, chapters and tags of the source into the output. Knows no video frames.

Packets are copied as they are. Only text subtitles that the output's container cannot hold are
converted; what cannot be, or is damaged, is left out and said.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from fractions import Fraction

import av
from av.container import InputContainer, OutputContainer
from av.format import Flags as FormatFlags
from av.packet import Packet
from av.stream import Stream
from av.subtitles.stream import SubtitleStream

from stages.video.containers import can_hold
from stages.video.decode import demux, video_stream

_TEXT_SUBTITLES = {
    "mp4": "mov_text",
    "mov": "mov_text",
    "ipod": "mov_text",
    "matroska": "srt",
    "webm": "webvtt",
}  # by the name of the container's format
_DERIVED_TAGS = (  # written anew by the container, or about the file that was
    "ALPHA_MODE",
    "BPS",
    "DURATION",
    "ENCODER",
    "NUMBER_OF_",
    "_STATISTICS",
    "COMPATIBLE_BRANDS",
    "MAJOR_BRAND",
    "MINOR_VERSION",
)


@dataclasses.dataclass(slots=True)
class Track:
    """One track of the source and its copy in the output."""

    source: Stream
    target: Stream
    is_converted: bool  # a text subtitle, decoded and encoded
    shift: int = 0  # ticks added to all times
    last_dts: int | None = None
    num_damaged: int = 0  # packets that were left out

    def copy(self, packet: Packet[Stream]) -> Packet[Stream] | None:
        """Return `packet` of the source as one of the target, or None if it says nothing."""
        if packet.is_corrupt:
            self.num_damaged += 1
            return None
        times = packet.pts, packet.dts, packet.duration, packet.time_base
        if self.is_converted:
            converted = self._convert(packet)
            if converted is None:
                return None
            packet = converted
        pts, dts, packet.duration, packet.time_base = times
        packet.dts = self._ordered(dts if dts is not None else pts)
        packet.pts = pts + self.shift if pts is not None else packet.dts
        packet.stream = self.target
        return packet

    def warnings(self) -> list[str]:
        """Return what was damaged, once all packets are copied."""
        if not self.num_damaged:
            return []
        name = f"{self.source.type} track {self.source.index}"
        return [f"{name}: {self.num_damaged} damaged packet(s) left out"]

    def _ordered(self, dts: int | None) -> int | None:
        """Shift `dts`; where a broken source goes back in time, stand still instead."""
        if dts is None:
            return None
        dts += self.shift
        if self.last_dts is not None and dts <= self.last_dts:
            dts = self.last_dts + (self.source.type == "audio")
        self.last_dts = dts
        return dts

    def _convert(self, packet: Packet[Stream]) -> Packet[Stream] | None:
        assert isinstance(self.source, SubtitleStream), "only subtitles are converted"
        assert isinstance(self.target, SubtitleStream), "only subtitles are converted"
        try:
            shown = self.source.codec_context.decode2(packet)
        except av.FFmpegError:
            self.num_damaged += 1
            return None
        if shown is None or not len(shown):
            return None
        return self.target.codec_context.encode_subtitle(shown)


def add_tracks(
    source: InputContainer, target: OutputContainer, warnings: list[str]
) -> dict[int, Track]:
    """Add all tracks but the video's to `target`; return them by the source's stream index."""
    tracks = {}
    for stream in source.streams:
        if stream is video_stream(source) or stream.type in {"data", "unknown"}:
            continue  # data are timed notes on the source's own frames, of no general use
        track = None if stream.type == "video" else _add_track(stream, target)
        if track is None:
            name = getattr(stream.codec_context, "name", None) or "unknown codec"
            why = f"{target.format.name} cannot hold it"
            if stream.type == "video":
                why = "only the first video is kept"
            warnings.append(f"{stream.type} track {stream.index} ({name}) left out: {why}")
            continue
        track.shift = -round(start_shift(source) / (stream.time_base or 1))
        tracks[stream.index] = track
    return tracks


def copy_tags(source: InputContainer, target: OutputContainer) -> None:
    """Copy title, chapters and other tags of the whole file."""
    target.metadata.update(_kept_tags(source.metadata))
    target.set_chapters(source.chapters())


def copy_stream_tags(source: Stream, target: Stream) -> None:
    """Copy language, title and disposition of a track."""
    target.metadata.update(_kept_tags(source.metadata))
    target.disposition = source.disposition


def start_shift(source: InputContainer) -> Fraction:
    """Return the seconds by which all times are brought forward.

    Broadcast formats (MPEG-TS) start at any time of day, which is set to 0; elsewhere a start that
    is not 0 is meant, and stays.
    """
    if not FormatFlags(source.format.flags) & FormatFlags.ts_discont:
        return Fraction(0)
    starts = [
        stream.start_time * stream.time_base
        for stream in source.streams
        if stream.start_time is not None and stream.time_base is not None
    ]
    return min(starts, default=Fraction(0))


def packets_of(
    source: InputContainer, tracks: dict[int, Track], warnings: list[str]
) -> Iterator[tuple[float, Packet[Stream]]]:
    """Yield the packets of all tracks, each with its time in seconds, in the source's order.

    Those of a source that cannot be read to its end are yielded as far as they come.
    """
    if not any(track.source.type != "attachment" for track in tracks.values()):
        return
    errors: list[str] = []
    for packet in demux(source, [track.source for track in tracks.values()], errors):
        track, is_flush = tracks.get(packet.stream.index), packet.size == 0 and packet.dts is None
        copied = None if is_flush or track is None else track.copy(packet)
        if copied is not None:
            yield float((copied.dts or 0) * copied.time_base), copied
    if errors:
        warnings.append(f"sound and subtitles could not be read whole: {errors[0]}")


def _add_track(source: Stream, target: OutputContainer) -> Track | None:
    if not can_hold(target.format.name, source):
        return _add_converted(source, target)
    copied = target.add_stream_from_template(source)
    copy_stream_tags(source, copied)
    return Track(source, copied, is_converted=False)


def _add_converted(source: Stream, target: OutputContainer) -> Track | None:
    codec = _TEXT_SUBTITLES.get(target.format.name)
    if not isinstance(source, SubtitleStream) or codec is None:
        return None
    source.codec_context.open(strict=False)
    header = source.codec_context.subtitle_header
    if header is None:
        return None  # pictures, no text
    converted = target.add_stream(codec)
    assert isinstance(converted, SubtitleStream), "a subtitle codec makes a subtitle stream"
    converted.codec_context.subtitle_header = header
    converted.codec_context.time_base = source.time_base or Fraction(1, 1000)
    converted.time_base = source.time_base
    copy_stream_tags(source, converted)
    return Track(source, converted, is_converted=True)


def _kept_tags(tags: dict[str, str]) -> dict[str, str]:
    return {name: tag for name, tag in tags.items() if not name.upper().startswith(_DERIVED_TAGS)}
