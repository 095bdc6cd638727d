"""What a video's first frame and its headers say of it, as facts; and what is not kept of it."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from fractions import Fraction
from typing import cast

import numpy as np
from av import VideoFrame
from av.buffer import Buffer

from stages.base import Job, UserError
from stages.video.decode import FrameIndex, has_hidden_alpha, open_file, video_stream
from stages.video.formats import kept_layout, lost_by_keeping
from stages.video.pixels import color_matrix_of, knows_matrix, matrix_code_of, tagged_range_of
from stages.window import Presentation, VideoFacts

_MIN_SIZE, _MAX_SIZE = 32, 16384
_MASTERING = struct.Struct("=22i")  # AVMasteringDisplayMetadata: ten rationals, two flags
_LIGHT = struct.Struct("=2I")  # AVContentLightMetadata
_CHROMATICITY_STEPS, _LUMINANCE_STEPS = 50000, 10000
_DYNAMIC = {
    "DOVI_RPU_BUFFER": "Dolby Vision",
    "DOVI_METADATA": "Dolby Vision",
    "DYNAMIC_HDR_PLUS": "HDR10+",
    "DYNAMIC_HDR_VIVID": "HDR Vivid",
}


def facts_of(job: Job, index: FrameIndex, frame: VideoFrame, pairs: int) -> VideoFacts:
    """Return the facts of a video, of which `frame` is one.

    Raises:
        UserError: it is too small or too large.
    """
    check_size(job.input, frame.width, frame.height)
    layout, shown = kept_layout(frame), _presentation_of(job.input, index, frame)
    return VideoFacts(
        job=job,
        width=frame.width,
        height=frame.height,
        num_frames=index.pts.size,
        pairs_per_item=pairs,
        pixel_format=layout.chroma,
        bit_depth=layout.bits,
        has_alpha=layout.has_alpha,
        color_matrix=color_matrix_of(frame),
        color_range=shown.tagged_range or "limited",
        presentation=shown,
    )


def check_size(path: str, width: int, height: int) -> None:
    """Refuse what is no picture to work on, before work.

    Raises:
        UserError: a side is under 32 or over 16384 pixels.
    """
    if min(width, height) < _MIN_SIZE:
        way_out = f"under {_MIN_SIZE} pixels a side; enlarge or pad it first"
    elif max(width, height) > _MAX_SIZE:
        way_out = f"over {_MAX_SIZE} pixels a side; scale it down first"
    else:
        return
    raise UserError(f"{path}: {width}x{height} is {way_out}")


def remarks(path: str, frame: VideoFrame) -> list[str]:
    """Return what a user should know of the video whose first frame is `frame`."""
    said = [f"{path}: {lost} ({frame.format.name})" for lost in lost_by_keeping(frame)]
    if frame.interlaced_frame:
        said.append(f"{path}: is interlaced; deinterlace it first, or motion will look combed")
    if not knows_matrix(frame):
        used = color_matrix_of(frame)
        said.append(f"{path}: frames between take colour matrix {frame.colorspace} for {used}")
    dynamic = {_DYNAMIC[name] for name in _side_data(frame) if name in _DYNAMIC}
    said += [f"{path}: {name} metadata is left out" for name in sorted(dynamic)]
    if _is_alpha_unread(path, frame):
        said.append(f"{path}: alpha is dropped: this FFmpeg has no decoder that reads it")
    return said


def _presentation_of(path: str, index: FrameIndex, frame: VideoFrame) -> Presentation:
    with open_file(path) as container:
        stream = video_stream(container)
        assert stream is not None, "checked before"
        rate, aspect = stream.average_rate, stream.sample_aspect_ratio or Fraction(0)
        codec = stream.codec_context.codec.canonical_name
    gaps, span = np.diff(index.pts), int(index.pts[-1] - index.pts[0])
    seen_rate = (index.pts.size - 1) / (span * index.time_base)
    return Presentation(
        time_base=index.time_base.as_integer_ratio(),
        first_pts=int(index.pts[0]),
        tick=int(np.gcd.reduce(gaps)),
        span=span,
        last_duration=index.last_duration or int(gaps[-1]),
        frame_rate=(rate or seen_rate.limit_denominator(1001)).as_integer_ratio(),
        sample_aspect_ratio=aspect.as_integer_ratio(),
        display_matrix=_display_matrix_of(frame),
        primaries=frame.color_primaries,
        transfer=frame.color_trc,
        matrix=matrix_code_of(frame),
        tagged_range=tagged_range_of(frame, codec),
        mastering_display=_mastering_display_of(frame),
        content_light=_content_light_of(frame),
    )


def _side_data(frame: VideoFrame) -> Mapping[str, Buffer]:
    """Return a frame's side data by PyAV's names."""
    sides = cast("Mapping[str, Buffer]", frame.side_data)
    names = ("DISPLAYMATRIX", "MASTERING_DISPLAY_METADATA", "CONTENT_LIGHT_LEVEL", *_DYNAMIC)
    found = {name: sides.get(name) for name in names}
    return {name: data for name, data in found.items() if data is not None}


def _display_matrix_of(frame: VideoFrame) -> tuple[int, ...]:
    data = _side_data(frame).get("DISPLAYMATRIX")
    return () if data is None else tuple(np.frombuffer(bytes(data), np.int32).tolist())


def _mastering_display_of(frame: VideoFrame) -> tuple[int, ...]:
    data = _side_data(frame).get("MASTERING_DISPLAY_METADATA")
    if data is None or len(bytes(data)) < _MASTERING.size:
        return ()
    *numbers, has_primaries, has_luminance = _MASTERING.unpack_from(bytes(data))
    if not (has_primaries and has_luminance and all(numbers[1::2])):
        return ()
    values = [top / bottom for top, bottom in zip(numbers[::2], numbers[1::2], strict=True)]
    lowest, highest = values[8:]
    points = [round(value * _CHROMATICITY_STEPS) for value in values[:8]]
    return (*points, *(round(value * _LUMINANCE_STEPS) for value in (highest, lowest)))


def _content_light_of(frame: VideoFrame) -> tuple[int, ...]:
    data = _side_data(frame).get("CONTENT_LIGHT_LEVEL")
    if data is None or len(bytes(data)) < _LIGHT.size:
        return ()
    return _LIGHT.unpack_from(bytes(data))


def _is_alpha_unread(path: str, frame: VideoFrame) -> bool:
    with open_file(path) as container:
        stream = video_stream(container)
        is_there = stream is not None and has_hidden_alpha(stream)
    return is_there and not any(part.is_alpha for part in frame.format.components)
