"""Writes one segment of a video with an encoder of its own. Knows no window and no final file."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from fractions import Fraction
from math import gcd
from pathlib import Path

import av
from av.codec.context import Flags, ThreadType
from av.container import InputContainer, OutputContainer
from av.packet import Packet
from av.video.codeccontext import VideoCodecContext
from av.video.reformatter import ColorRange as SwsRange
from av.video.stream import VideoStream

from stages.base import UserError
from stages.video.formats import encoder_formats, layout_of, lost_by_encoding
from stages.video.light import LIGHT_OPTIONS
from stages.video.pixels import Bytes, frame_of_row
from stages.window import ColorRange, VideoFacts

# NUT keeps any time base exactly, and any codec's packets, headers and order; MP4 and Matroska
# would round times or refuse codecs. Times of a segment count from the video's first frame, since
# NUT refuses negative ones; the first *decoding* times are negative with B-frames, and may be.
# But NUT has no ProRes, and gives back what VP9 has of alpha damaged (FFmpeg 8): these lie in
# Matroska, whose milliseconds are taken for units of `segment_time_base`, so nothing is rounded.
SEGMENT_SUFFIX = ".nut"
PART_SUFFIX = ".part"  # while it is written
_OPTIONS = {"fflags": "+bitexact", "avoid_negative_ts": "disabled"}
_MILLISECOND = Fraction(1, 1000)
_MAX_INT = 2**31 - 1  # of both parts of a fraction of FFmpeg's
_MAX_RATE_DENOMINATOR = 1001
_MAX_RATE = Fraction(1_000_000)  # a header may say more than 32 bits hold

_MAX_CRF = {"libx264": 51, "libx265": 51}
_OTHER_MAX_CRF = 63
_SIDE_ALPHA = frozenset({"libvpx", "libvpx-vp9"})  # alpha beside the packets, not in them
_SIDE_ALPHA_CONTAINERS = frozenset({"matroska", "webm"})  # that can store it there
_PRORES = frozenset({"prores_ks", "prores", "prores_aw"})
_LAMBDA = 118  # FFmpeg's unit of a constant quantizer
RANGE_CODES: dict[ColorRange | None, int] = {
    None: SwsRange.UNSPECIFIED,
    "limited": SwsRange.MPEG,
    "full": SwsRange.JPEG,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Encoding:
    """How a video is compressed; equal values give equal bytes."""

    codec: str
    crf: int
    preset: str
    threads: int  # bytes depend on it, so it is never taken from the machine
    pixel_format: str = ""  # that the encoder is given: the answer of `check_encoding`


class SegmentWriter:
    """Encodes frames into one file, which appears under its name whole and synced."""

    def __init__(self, path: Path, facts: VideoFacts, encoding: Encoding) -> None:
        self._path, self._facts, self._encoding = path, facts, encoding
        self._temporary = path.with_suffix(PART_SUFFIX)
        has_side_alpha = "yuva" in encoding.pixel_format and encoding.codec in _SIDE_ALPHA
        self._is_matroska = has_side_alpha or encoding.codec in _PRORES
        name = "matroska" if self._is_matroska else "nut"
        self._temporary.touch(mode=0o644)  # whatever the umask is
        self._container = av.open(
            str(self._temporary), "w", format=name, container_options=_OPTIONS
        )
        try:
            self._stream = add_encoder(self._container, facts, encoding)
        except BaseException:
            self.discard()
            raise

    def put(self, row: Bytes, half_ticks: int) -> None:
        """Encode one frame, shown at `half_ticks` after the first of the video.

        Args:
            row: planar YUV [frame_bytes]; free again when this returns.
            half_ticks: halves of a tick of the source's time base.
        """
        frame = frame_of_row(row, self._facts, self._encoding.pixel_format)
        frame.pts = half_ticks // self._facts.presentation.tick
        frame.time_base = segment_time_base(self._facts)
        self._mux(self._stream.encode(frame))

    def finish(self) -> None:
        """Make the file durable under its name."""
        self._mux(self._stream.encode())
        self._container.close()
        sync(self._temporary)
        self._temporary.rename(self._path)
        sync(self._path.parent)

    def discard(self) -> None:
        """Close and delete what was written so far, also where nothing more can be written."""
        try:
            with suppress(OSError, av.FFmpegError):  # a full disk, which the caller knows of
                self._container.close()
        finally:
            self._temporary.unlink(missing_ok=True)

    def _mux(self, packets: Sequence[Packet[VideoStream]]) -> None:
        for packet in packets:
            if self._is_matroska:
                packet.time_base = _MILLISECOND
            self._container.mux(packet)


def add_encoder(container: OutputContainer, facts: VideoFacts, encoding: Encoding) -> VideoStream:
    """Add a video stream with an encoder that `check_encoding` has passed."""
    stream = container.add_stream(encoding.codec, rate=written_rate(facts))
    assert isinstance(stream, VideoStream), "checked by `check_encoding`"
    _set_up(stream.codec_context, facts, encoding)
    stream.time_base = stream.codec_context.time_base
    return stream


def segment_time_base(facts: VideoFacts) -> Fraction:
    """Return seconds per unit of time in a segment: half of the source's smallest step."""
    return Fraction(*facts.presentation.time_base) * facts.presentation.tick / 2


def written_unit(facts: VideoFacts) -> Fraction:
    """Return seconds per unit of time in the output: half a tick of the source's.

    Where FFmpeg's 32 bits cannot count these, it is the longest that all times are multiples of.
    """
    shown = facts.presentation
    half_tick = Fraction(*shown.time_base) / 2
    if _fits(half_tick):
        return half_tick
    return half_tick * gcd(shown.tick, 2 * shown.first_pts, 2 * shown.last_duration)


def written_rate(facts: VideoFacts) -> Fraction:
    """Return the frames per second of the output, on average; rounded if FFmpeg cannot hold it."""
    rate = 2 * Fraction(*facts.presentation.frame_rate)
    fitting = rate if _fits(rate) else rate.limit_denominator(_MAX_RATE_DENOMINATOR)
    return min(fitting, _MAX_RATE)


def segment_unit(segment: InputContainer, facts: VideoFacts) -> Fraction:
    """Return seconds per unit of time as they are read from a segment."""
    if "matroska" in segment.format.name:
        return segment_time_base(facts)
    return segment.streams.video[0].time_base or Fraction(1)


def check_encoding(
    facts: VideoFacts, encoding: Encoding, *, container: str
) -> tuple[Encoding, list[str]]:
    """Open the encoder without writing anything; return what it is given, and what that loses.

    Args:
        facts: of the job.
        encoding: what is asked for.
        container: name of the output's format; "" if it is none.

    Raises:
        UserError: no such encoder, or it refuses crf, preset, or this video's size, format or
            times.
    """
    _check_times(facts)
    name = encoding.codec
    try:
        context = av.CodecContext.create(name, "w")
    except av.codec.codec.UnknownCodecError as error:
        raise UserError(f"codec = {name}: no such encoder; try libx264") from error
    if not isinstance(context, VideoCodecContext):
        raise UserError(f"codec = {name}: encodes {context.type}, not video; try libx264")
    max_crf = _MAX_CRF.get(name, _OTHER_MAX_CRF)
    if not 0 <= encoding.crf <= max_crf:
        raise UserError(f"crf = {encoding.crf}: {name} takes 0 (best) to {max_crf}")
    layout = layout_of(facts)
    offered = [offer.name for offer in context.codec.video_formats or ()]
    if name in _SIDE_ALPHA and container not in _SIDE_ALPHA_CONTAINERS:
        offered = [offer for offer in offered if not offer.startswith("yuva")]
    for pixel_format in encoder_formats(layout, offered):
        trial = replace(encoding, pixel_format=pixel_format)
        if _opens(facts, trial):
            lost = lost_by_encoding(layout, pixel_format, name)
            return trial, lost + _lost_light(facts, name)
    raise UserError(
        f"codec = {name} refuses preset = {encoding.preset}, {layout.name}, "
        f"{facts.width}x{facts.height} or {_times_in_words(facts)}; try another preset, or libx264"
    )


def sync(path: Path) -> None:
    """Wait until `path`, a file or a folder, has reached the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _check_times(facts: VideoFacts) -> None:
    units = written_unit(facts), segment_time_base(facts)
    if not all(_fits(unit) for unit in units):
        base = Fraction(*facts.presentation.time_base)
        way_out = "copy it to .mkv, which counts milliseconds, first"
        raise UserError(
            f"{facts.job.input}: its times, in units of {base} s, are too fine to halve; {way_out}"
        )


def _fits(number: Fraction) -> bool:
    return max(number.as_integer_ratio()) <= _MAX_INT


def _opens(facts: VideoFacts, encoding: Encoding) -> bool:
    context = av.CodecContext.create(encoding.codec, "w")
    assert isinstance(context, VideoCodecContext), "checked before"
    context.framerate = written_rate(facts)
    _set_up(context, facts, encoding)
    try:
        context.open()
    except av.FFmpegError:
        return False
    return True


def _times_in_words(facts: VideoFacts) -> str:
    return f"{float(written_rate(facts)):.6g} frames/s in units of {segment_time_base(facts)} s"


def _lost_light(facts: VideoFacts, codec: str) -> list[str]:
    shown = facts.presentation
    if not (shown.mastering_display or shown.content_light) or codec in LIGHT_OPTIONS:
        return []
    takers = ", ".join(LIGHT_OPTIONS)
    return [f"mastering display and light levels are left out of {codec}; {takers} write them"]


def _set_up(context: VideoCodecContext, facts: VideoFacts, encoding: Encoding) -> None:
    shown = facts.presentation
    context.width, context.height = facts.width, facts.height
    context.pix_fmt = encoding.pixel_format
    context.time_base = segment_time_base(facts)
    context.thread_count = encoding.threads
    context.thread_type = ThreadType.AUTO  # PyAV's default, slices, costs x264 quality
    context.flags |= Flags.bitexact
    if shown.sample_aspect_ratio[0]:
        context.sample_aspect_ratio = Fraction(*shown.sample_aspect_ratio)
    set_colors(context, facts)
    names = {option.name for option in context.supported_options.private}
    context.options = _options(facts, encoding, names)
    if "crf" not in names and encoding.codec not in _PRORES:
        # A constant quantizer then; lossless codecs take no notice.
        context.qscale = True
        context.global_quality = _LAMBDA * max(1, encoding.crf // 6)


def set_colors(context: VideoCodecContext, facts: VideoFacts) -> None:
    """Tag an encoder or a written stream with the source's colours."""
    shown = facts.presentation
    context.color_primaries, context.color_trc = shown.primaries, shown.transfer
    context.colorspace = shown.matrix
    context.color_range = RANGE_CODES[shown.tagged_range]


def _x264_instructions() -> str:
    """Return AVX2 where x264 would choose AVX-512, whose results change from run to run.

    Its macroblock tree reads memory that nobody wrote: at 96x64 to 480x270 about one of four runs
    over the same frames gave other bytes (x264 165, one thread); none of 50 did with AVX2.
    """
    info = Path("/proc/cpuinfo")
    return "avx2" if info.exists() and "avx512" in info.read_text() else "auto"


def _options(facts: VideoFacts, encoding: Encoding, names: set[str]) -> dict[str, str]:
    parameters = {
        "x264-params": f"asm={_x264_instructions()}",
        "x265-params": f"log-level=error:pools={encoding.threads}",
        "svtav1-params": f"lp={encoding.threads}",
    }
    if encoding.codec in LIGHT_OPTIONS:
        name, told = LIGHT_OPTIONS[encoding.codec](facts.presentation)
        parameters[name] = ":".join([parameters[name], *told])
    quality = {"crf": str(encoding.crf)}
    if encoding.codec == "libx264" and encoding.crf == 0 and facts.bit_depth > 8:
        quality = {"qp": "0"}  # crf 0 is lossless with 8 bits alone
    options = {**quality, "preset": encoding.preset, **parameters}
    return {name: value for name, value in options.items() if name in names}
