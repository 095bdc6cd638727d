"""Joins segments, and the source's other tracks, into the final file by copying packets.

Memory does not grow with the video but for 8 bytes a frame and array: packets are streamed.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.container import OutputContainer
from av.packet import Packet
from av.stream import Stream
from av.video.stream import VideoStream
from numpy.typing import NDArray

from stages.base import UserError
from stages.output import publish
from stages.video import tracks
from stages.video.containers import container_name
from stages.video.decode import has_hidden_alpha, open_file, video_stream
from stages.video.encode import (
    segment_time_base,
    segment_unit,
    set_colors,
    written_rate,
    written_unit,
)
from stages.window import VideoFacts

Ticks = NDArray[np.int64]
_HEVC_TAG = "hvc1"  # Apple's players refuse FFmpeg's default, hev1
_REFUSALS = (av.InvalidDataError, av.ArgumentError)  # of what a packet holds; a full disk is none
_MP4_FAMILY = frozenset({"mp4", "mov", "ipod"})


@dataclass(frozen=True, slots=True)
class Times:
    """When each packet is decoded and shown, in order of decoding."""

    pts: Ticks
    dts: Ticks  # strictly increasing, never behind pts
    durations: Ticks


def join(segments: Sequence[Path], facts: VideoFacts, output: Path) -> list[str]:
    """Write `output` from closed segments and the source's tracks; return warnings.

    The file appears under its name whole and synced, or not at all.
    """
    temporary = output.with_name(f".{output.name}.part")
    format_name = container_name(output)
    try:
        warnings = _write(segments, facts, temporary, format_name, has_tracks=True)
        publish(temporary, output, Path(facts.job.work_dir))
    finally:
        temporary.unlink(missing_ok=True)
    return warnings


def plan_times(stored: Sequence[Ticks], last_duration: int, end: int = 0) -> Times:
    """Return when to decode and show the packets of consecutive segments.

    Each packet is decoded at the time at which the one `delay` places before it *in order of
    presentation* is shown: that never lies behind its own time, whatever the frame rate does. The
    first ones continue the rhythm of the end backwards, so that the sum of all steps is the length
    of the video.

    Args:
        stored: pts of each segment's packets, as stored; segments do not overlap in time.
        last_duration: of the frame that is shown last.
        end: when the video ends; where that is later, the last frame is shown until then.
    """
    ranks = [np.argsort(np.argsort(pts, kind="stable"), kind="stable") for pts in stored]
    delay = max(int((np.arange(rank.size) - rank).max()) for rank in ranks)
    pts = np.concatenate(stored)
    shown = np.sort(pts)
    if np.any(np.diff(shown) <= 0):
        raise ValueError("two frames of the written segments have one time")
    last_duration = max(last_duration, end - int(shown[-1]))
    before = shown[0] - (shown[-1] - shown[shown.size - 1 - delay : shown.size - 1])
    dts = np.concatenate([before, shown[: shown.size - delay]])
    durations = np.append(np.diff(shown), last_duration)[np.searchsorted(shown, pts)]
    durations[-1] = last_duration  # MP4's length counts the packet that is stored last
    return Times(pts, dts, durations)


def _write(
    segments: Sequence[Path], facts: VideoFacts, path: Path, format_name: str, *, has_tracks: bool
) -> list[str]:
    """Write the file; without other tracks if damaged ones keep it from being written."""
    warnings: list[str] = []
    copied: dict[int, tracks.Track] = {}
    options = {"fflags": "+bitexact"}  # no date, version or random number in the file
    if format_name in _MP4_FAMILY:  # a late start is counted in these, by default in milliseconds
        options["movie_timescale"] = str(written_unit(facts).denominator)
    try:
        with ExitStack() as stack:
            source = stack.enter_context(open_file(facts.job.input))
            target = stack.enter_context(
                av.open(str(path), "w", format=format_name, container_options=options)
            )
            first = stack.enter_context(open_file(str(segments[0])))
            stream = _add_video(target, first.streams.video[0], facts)
            original = video_stream(source)
            if original is not None:
                tracks.copy_stream_tags(original, stream)
            if has_tracks:
                copied |= tracks.add_tracks(source, target, warnings)
            tracks.copy_tags(source, target)
            video = _video_packets(segments, stream, facts, tracks.start_shift(source))
            others = tracks.packets_of(source, copied, warnings)
            for _time, packet in heapq.merge(video, others, key=lambda timed: timed[0]):
                _mux(target, packet, copied)
            for track in copied.values():  # before their file is closed
                warnings += track.warnings()
    except _REFUSALS as error:
        if not copied:
            way_out = ".mp4" if format_name == "matroska" else ".mkv"
            raise UserError(
                f"{facts.job.output}: {format_name} cannot hold these frames at these times "
                f"({error.strerror}); name the output {way_out}"
            ) from error
        again = _write(segments, facts, path, format_name, has_tracks=False)
        return [
            *again,
            f"all other tracks are left out: {format_name} refuses them ({error.strerror})",
        ]
    return warnings


def _mux(
    target: OutputContainer, packet: Packet[Stream], copied: Mapping[int, tracks.Track]
) -> None:
    """Store a packet; one of a copied track that the container refuses is left out."""
    owner = next((track for track in copied.values() if track.target is packet.stream), None)
    try:
        target.mux(packet)
    except _REFUSALS:
        if owner is None:
            raise  # also when what is refused was stored earlier, and comes to be written now
        owner.num_damaged += 1


def _add_video(target: OutputContainer, template: VideoStream, facts: VideoFacts) -> VideoStream:
    stream = target.add_stream_from_template(template, opaque=True)
    shown = facts.presentation
    context = stream.codec_context
    stream.time_base = written_unit(facts)
    if target.format.name == "avi":  # its rate; anything finer makes it 600 frames/s, most empty
        stream.time_base = segment_time_base(facts)
    context.framerate = written_rate(facts)
    if shown.sample_aspect_ratio[0]:
        context.sample_aspect_ratio = Fraction(*shown.sample_aspect_ratio)
    set_colors(context, facts)
    if has_hidden_alpha(template):
        context.pix_fmt = "yuva420p"  # else the container's header would not say it
    if shown.display_matrix:
        stream.set_display_matrix(shown.display_matrix)
    if target.format.name in _MP4_FAMILY and context.name == "hevc":
        context.codec_tag = _HEVC_TAG
    if context.name == "prores":  # its tag says which profile it is
        context.codec_tag = template.codec_context.codec_tag
    return stream


def _video_packets(
    segments: Sequence[Path], stream: VideoStream, facts: VideoFacts, shift: Fraction
) -> Iterator[tuple[float, Packet[Stream]]]:
    shown, unit = facts.presentation, written_unit(facts)
    half_tick = Fraction(*shown.time_base) / 2
    halves = int(unit / half_tick)
    start = (2 * shown.first_pts - round(shift / half_tick)) // halves
    headers = {_header(segment) for segment in segments}
    if len(headers) != 1:
        raise ValueError(f"the segments in {segments[0].parent} were encoded in different ways")
    stored = [start + _stored_pts(segment, facts) for segment in segments]
    last_duration = 2 * shown.last_duration // halves
    end = start + 2 * shown.span // halves + last_duration
    times = plan_times(stored, last_duration, end)
    number = 0
    for segment in segments:
        for packet in _packets(segment):
            packet.stream, packet.time_base = stream, unit
            packet.pts, packet.dts = int(times.pts[number]), int(times.dts[number])
            packet.duration = int(times.durations[number])
            yield float(packet.dts * unit), packet
            number += 1


def _packets(segment: Path) -> Iterator[Packet[Stream]]:
    with open_file(str(segment)) as container:
        for packet in container.demux():
            if packet.pts is not None:  # the first packets have no dts in NUT; the flush has none
                yield packet


def _stored_pts(segment: Path, facts: VideoFacts) -> Ticks:
    """Return when the packets of a segment are shown after the first frame, in output units."""
    with open_file(str(segment)) as container:
        unit = segment_unit(container, facts)
    stored = np.fromiter((packet.pts or 0 for packet in _packets(segment)), np.int64)
    ratio = unit / written_unit(facts)
    return stored * ratio.numerator // ratio.denominator


def _header(segment: Path) -> bytes:
    with open_file(str(segment)) as container:
        return container.streams.video[0].codec_context.extradata or b""
