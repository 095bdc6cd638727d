"""Samples and colours: decoder frames to rows of planar YUV and back. Knows no file and no job."""

from __future__ import annotations

import numpy as np
from av import VideoFrame
from av.video.reformatter import ColorRange as SwsRange
from av.video.reformatter import Interpolation
from numpy.typing import NDArray

from stages.video.formats import layout_of
from stages.window import UNSPECIFIED, ColorMatrix, ColorRange, VideoFacts

Bytes = NDArray[np.uint8]
Samples = NDArray[np.uint8] | NDArray[np.uint16]

# Formats whose planes are what we want: no scaler, and every sample untouched.
_SAME_SAMPLES = {
    "yuvj420p": "yuv420p",
    "yuvj422p": "yuv422p",
    "yuvj444p": "yuv444p",
}
_MATRICES: dict[int, ColorMatrix] = {
    **dict.fromkeys((4, 5, 6, 7), "bt601"),
    1: "bt709",
    **dict.fromkeys((9, 10), "bt2020"),
}
_UNTAGGED = (0, UNSPECIFIED, 3)
_NO_MATRIX = (0, 3)  # RGB, which a frame of YUV is not, and a reserved one
MATRIX_CODES: dict[ColorMatrix, int] = {"bt601": 6, "bt709": 1, "bt2020": 9}  # H.273
_SWS_MATRICES: dict[ColorMatrix, int] = {"bt601": 5, "bt709": 1, "bt2020": 9}
_SWS_RANGES: dict[ColorRange, SwsRange] = {"limited": SwsRange.MPEG, "full": SwsRange.JPEG}
_LIMITED_GRAY = frozenset({"h264", "hevc"})
_RESAMPLING = Interpolation.BICUBIC | Interpolation.ACCURATE_RND | Interpolation.BITEXACT
_HD_HEIGHT = 720  # untagged video is BT.709 from here on, as players assume


def color_matrix_of(frame: VideoFrame) -> ColorMatrix:
    """Return the matrix between RGB and YUV: the tagged one, else what players assume."""
    assumed: ColorMatrix = "bt709" if frame.height >= _HD_HEIGHT else "bt601"
    return _MATRICES.get(frame.colorspace, assumed)


def matrix_code_of(frame: VideoFrame) -> int:
    """Return the H.273 code that a sink writes: the source's own, and for RGB what we chose."""
    if frame.format.is_rgb:
        return MATRIX_CODES[color_matrix_of(frame)]
    return UNSPECIFIED if frame.colorspace in _NO_MATRIX else frame.colorspace


def knows_matrix(frame: VideoFrame) -> bool:
    """Return whether frames in between are computed with the matrix that the source states."""
    return frame.format.is_rgb or frame.colorspace in _MATRICES or frame.colorspace in _UNTAGGED


def tagged_range_of(frame: VideoFrame, codec: str) -> ColorRange | None:
    """Return the range that the source states; None: it does not say.

    RGB becomes limited YUV. Gray that does not say is full range, as scalers and viewers take it,
    but in the codecs that state what is limited by stating nothing.
    """
    if frame.format.is_rgb:
        return "limited"
    if frame.format.name.startswith("yuvj"):
        return "full"
    ranges: dict[int, ColorRange] = {SwsRange.MPEG: "limited", SwsRange.JPEG: "full"}
    is_gray = frame.format.name.startswith(("gray", "ya"))
    assumed: ColorRange | None = "full" if is_gray and codec not in _LIMITED_GRAY else None
    return ranges.get(frame.color_range, assumed)


def copy_to_row(frame: VideoFrame, row: Bytes, facts: VideoFacts) -> None:
    """Write `frame` into `row` [facts.frame_bytes], by one copy where no conversion is needed.

    Raises:
        ValueError: the frame has another size than the video.
    """
    if (frame.width, frame.height) != (facts.width, facts.height):
        raise ValueError(
            f"frame is {frame.width}x{frame.height}, the video {facts.width}x{facts.height}"
        )
    source = frame.format.name
    if source.startswith("gray"):
        # The scaler takes gray for full range and would squeeze it; it leaves gray to gray alone.
        gray = "gray" if facts.bit_depth == 8 else f"gray{facts.bit_depth}le"
        frame = frame.reformat(format=gray, interpolation=_RESAMPLING, threads=1)
        no_color = 1 << (facts.bit_depth - 1)
        for chroma in planes_of_row(row, facts)[1:]:
            chroma[:] = no_color
    elif _SAME_SAMPLES.get(source, source) != layout_of(facts).name:
        frame = _convert(frame, layout_of(facts).name, facts)
    for target, plane in zip(
        planes_of_row(row, facts), _planes_of_frame(frame, facts), strict=False
    ):
        np.copyto(target, plane[: target.shape[0], : target.shape[1]])


def frame_of_row(row: Bytes, facts: VideoFacts, pixel_format: str) -> VideoFrame:
    """Return a frame of its own memory with the samples of `row`, as an encoder takes them.

    Copied, not wrapped: encoders that reorder frames or use frame threads (mpeg4, ffv1) keep a
    reference beyond the call, and the row's slot is written again by then. It costs 1 % of x264.
    """
    own_format = layout_of(facts).name
    frame = VideoFrame(facts.width, facts.height, own_format)
    for target, source in zip(
        _planes_of_frame(frame, facts), planes_of_row(row, facts), strict=True
    ):
        np.copyto(target[: source.shape[0], : source.shape[1]], source)
    return frame if pixel_format == own_format else _convert(frame, pixel_format, facts)


def planes_of_row(row: Bytes, facts: VideoFacts) -> list[Samples]:
    """Return the planes Y [H, W], U, V and, if there is alpha, A [H, W] of one row, as views."""
    samples = samples_of(row, facts)
    full = facts.height, facts.width
    shapes = [full, facts.chroma_shape, facts.chroma_shape, *([full] if facts.has_alpha else [])]
    planes, start = [], 0
    for rows, columns in shapes:
        planes.append(samples[start : start + rows * columns].reshape(rows, columns))
        start += rows * columns
    return planes


def with_mean_alpha(middle: Bytes, earlier: Bytes, later: Bytes, facts: VideoFacts) -> Bytes:
    """Return the row of a frame in between: a model's colours, and the mean of both alphas."""
    if not facts.has_alpha:
        return middle
    row = np.empty(facts.frame_bytes, np.uint8)
    row[: facts.color_bytes] = middle
    before, after = (samples_of(other[facts.color_bytes :], facts) for other in (earlier, later))
    samples_of(row[facts.color_bytes :], facts)[:] = (before.astype(np.uint32) + after + 1) // 2
    return row


def samples_of(row: Bytes, facts: VideoFacts) -> Samples:
    """Return the samples of one row, or of several, as a view."""
    return row if facts.sample_bytes == 1 else row.view("<u2")


def _planes_of_frame(frame: VideoFrame, facts: VideoFacts) -> list[Samples]:
    """Return the planes of a planar frame as views, wider than the picture by padding."""
    planes = []
    for plane in frame.planes:
        rows = np.frombuffer(plane, np.uint8).reshape(-1, abs(plane.line_size))  # type: ignore[call-overload]
        rows = samples_of(rows, facts)
        planes.append(rows if plane.line_size > 0 else rows[::-1])  # stored bottom-up
    return planes


def _convert(frame: VideoFrame, pixel_format: str, facts: VideoFacts) -> VideoFrame:
    """Resample chroma or change bits; the same matrix and range on both sides, so both stay."""
    matrix = _SWS_MATRICES[facts.color_matrix]
    target_range = _SWS_RANGES[facts.color_range]
    return frame.reformat(
        format=pixel_format,
        src_colorspace=matrix,
        dst_colorspace=matrix,
        src_color_range=SwsRange.JPEG if frame.format.is_rgb else target_range,
        dst_color_range=target_range,
        interpolation=_RESAMPLING,
        threads=1,
    )
