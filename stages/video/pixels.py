"""Samples and colours: decoder frames to rows of planar YUV and back. Knows no file and no job."""

from __future__ import annotations

import numpy as np
from av import VideoFrame
from av.video.reformatter import ColorRange as SwsRange
from av.video.reformatter import Interpolation
from numpy.typing import NDArray

from stages.window import UNSPECIFIED, ColorMatrix, ColorRange, PixelFormat, VideoFacts

Bytes = NDArray[np.uint8]

# Formats whose first three planes are what we want: no scaler, and every sample untouched.
_AS_IS: dict[PixelFormat, frozenset[str]] = {
    "yuv420p": frozenset({"yuv420p", "yuvj420p", "yuva420p"}),
    "yuv444p": frozenset({"yuv444p", "yuvj444p", "yuva444p"}),
}
_MATRICES: dict[int, ColorMatrix] = {
    **dict.fromkeys((4, 5, 6, 7), "bt601"),
    1: "bt709",
    **dict.fromkeys((9, 10), "bt2020"),
}
MATRIX_CODES: dict[ColorMatrix, int] = {"bt601": 6, "bt709": 1, "bt2020": 9}  # H.273
_SWS_MATRICES: dict[ColorMatrix, int] = {"bt601": 5, "bt709": 1, "bt2020": 9}
_SWS_RANGES: dict[ColorRange, SwsRange] = {"limited": SwsRange.MPEG, "full": SwsRange.JPEG}
_RESAMPLING = Interpolation.BICUBIC | Interpolation.ACCURATE_RND | Interpolation.BITEXACT
_NO_COLOR = 128  # a chroma sample of gray
_HD_HEIGHT = 720  # untagged video is BT.709 from here on, as players assume


def pixel_format_of(frame: VideoFrame) -> PixelFormat:
    """Return how `frame` is handed on: full chroma where it has it, or where a size is odd."""
    if frame.width % 2 or frame.height % 2:
        return "yuv444p"
    if frame.format.is_rgb or len(frame.format.components) < 3:
        return "yuv420p"
    chroma = frame.format.components[1]
    is_full = (chroma.width, chroma.height) == (frame.width, frame.height)
    return "yuv444p" if is_full else "yuv420p"


def color_matrix_of(frame: VideoFrame) -> ColorMatrix:
    """Return the matrix between RGB and YUV: the tagged one, else what players assume."""
    assumed: ColorMatrix = "bt709" if frame.height >= _HD_HEIGHT else "bt601"
    return _MATRICES.get(frame.colorspace, assumed)


def matrix_code_of(frame: VideoFrame) -> int:
    """Return the H.273 code that a sink writes: the source's own, and for RGB what we chose."""
    if frame.format.is_rgb:
        return MATRIX_CODES[color_matrix_of(frame)]
    return frame.colorspace if frame.colorspace in _MATRICES else UNSPECIFIED


def tagged_range_of(frame: VideoFrame) -> ColorRange | None:
    """Return the range that the source states; RGB becomes limited YUV; None: it does not say."""
    if frame.format.is_rgb:
        return "limited"
    if frame.format.name.startswith("yuvj"):
        return "full"
    ranges: dict[int, ColorRange] = {SwsRange.MPEG: "limited", SwsRange.JPEG: "full"}
    return ranges.get(frame.color_range)


def copy_to_row(frame: VideoFrame, row: Bytes, facts: VideoFacts) -> None:
    """Write `frame` into `row` [facts.frame_bytes], by one copy where no conversion is needed.

    Raises:
        ValueError: the frame has another size than the video.
    """
    if (frame.width, frame.height) != (facts.width, facts.height):
        raise ValueError(
            f"frame is {frame.width}x{frame.height}, the video {facts.width}x{facts.height}"
        )
    if frame.format.name.startswith("gray"):
        # The scaler takes gray for full range and would squeeze it; it leaves gray to gray alone.
        frame = frame.reformat(format="gray", interpolation=_RESAMPLING, threads=1)
        row[facts.height * facts.width :] = _NO_COLOR
    elif frame.format.name not in _AS_IS[facts.pixel_format]:
        frame = _convert(frame, facts)
    for target, source in zip(planes_of_row(row, facts), planes_of_frame(frame), strict=False):
        np.copyto(target, source[: target.shape[0], : target.shape[1]])


def frame_of_row(row: Bytes, facts: VideoFacts) -> VideoFrame:
    """Return a frame of its own memory with the samples of `row`.

    Copied, not wrapped: encoders that reorder frames or use frame threads (mpeg4, ffv1) keep a
    reference beyond the call, and the row's slot is written again by then. It costs 1 % of x264.
    """
    frame = VideoFrame(facts.width, facts.height, facts.pixel_format)
    for target, source in zip(planes_of_frame(frame), planes_of_row(row, facts), strict=True):
        np.copyto(target[: source.shape[0], : source.shape[1]], source)
    return frame


def planes_of_row(row: Bytes, facts: VideoFacts) -> tuple[Bytes, Bytes, Bytes]:
    """Return the planes Y [H, W], U and V of one row, as views."""
    rows, columns = facts.chroma_shape
    y, u = facts.height * facts.width, rows * columns
    return (
        row[:y].reshape(facts.height, facts.width),
        row[y : y + u].reshape(rows, columns),
        row[y + u : y + 2 * u].reshape(rows, columns),
    )


def planes_of_frame(frame: VideoFrame) -> list[Bytes]:
    """Return the planes of a planar 8-bit frame as views, wider than the picture by padding."""
    planes = []
    for plane in frame.planes[:3]:
        rows = np.frombuffer(plane, np.uint8).reshape(-1, abs(plane.line_size))  # type: ignore[call-overload]
        planes.append(rows if plane.line_size > 0 else rows[::-1])  # stored bottom-up
    return planes


def _convert(frame: VideoFrame, facts: VideoFacts) -> VideoFrame:
    """Resample chroma or reduce bits; the same matrix and range on both sides, so both stay."""
    matrix = _SWS_MATRICES[facts.color_matrix]
    target_range = _SWS_RANGES[facts.color_range]
    return frame.reformat(
        format=facts.pixel_format,
        src_colorspace=matrix,
        dst_colorspace=matrix,
        src_color_range=SwsRange.JPEG if frame.format.is_rgb else target_range,
        dst_color_range=target_range,
        interpolation=_RESAMPLING,
        threads=1,
    )
