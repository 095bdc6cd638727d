"""What video sources, models and sinks say to each other: facts of a video, meta of a window.

Imports neither a media nor a model library: every worker of a video pipeline imports this.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from stages.base import Job

PixelFormat = Literal["yuv420p", "yuv422p", "yuv444p"]
ColorMatrix = Literal["bt601", "bt709", "bt2020"]
ColorRange = Literal["limited", "full"]

UNSPECIFIED = 2  # in H.273's tables of colour primaries, transfer and matrix


@dataclass(frozen=True, slots=True, kw_only=True)
class Presentation:
    """How the source is shown: what a sink keeps, and no model needs."""

    time_base: tuple[int, int] = (1, 1000)  # seconds of one tick of `pts`: numerator, denominator
    first_pts: int = 0  # of the first frame
    tick: int = 1  # all differences of pts are multiples of it: 1 frame where the rate is constant
    span: int = 0  # ticks from the first frame to the last; 0 = as far as frames are written
    last_duration: int = 0  # ticks that the last frame is shown; 0 = as the one before it
    frame_rate: tuple[int, int] = (25, 1)  # on average: numerator, denominator
    sample_aspect_ratio: tuple[int, int] = (0, 1)  # width : height of a sample; (0, 1) = unknown
    display_matrix: tuple[int, ...] = ()  # 9 numbers, 16.16 fixed point; () = shown as stored
    primaries: int = UNSPECIFIED  # these three as H.273 numbers them
    transfer: int = UNSPECIFIED
    matrix: int = UNSPECIFIED
    tagged_range: ColorRange | None = None  # None: the source does not say
    mastering_display: tuple[int, ...] = ()  # red, green, blue, white: x, y in 1/50000 each; then
    # the highest and the lowest luminance in 1/10000 cd/m2; () = the source does not say
    content_light: tuple[int, ...] = ()  # MaxCLL and MaxFALL in cd/m2; () = likewise


@dataclass(frozen=True, slots=True, kw_only=True)
class VideoFacts:
    """What is known of a video job once its input is open; all shapes follow from it.

    `frames` of a window is [K + 1, frame_bytes] uint8: each row is one frame as tightly packed
    planes Y, U, V of `pixel_format`, then A if there is alpha. `middle` is [K, color_bytes],
    likewise but for alpha, which no model makes. A sample of more than 8 bits takes 2 bytes,
    little-endian. Samples are the coded ones: gamma, PQ or HLG, never linear light.
    """

    job: Job
    width: int
    height: int
    num_frames: int
    pairs_per_item: int  # K; the last window is padded with copies of the last frame
    pixel_format: PixelFormat  # yuv444p where a size is odd or the source has full chroma
    bit_depth: int = 8  # of a sample: 8, 10 or 12
    has_alpha: bool = False
    color_matrix: ColorMatrix
    color_range: ColorRange
    presentation: Presentation = Presentation()

    @property
    def chroma_shape(self) -> tuple[int, int]:
        """Rows and columns of the planes U and V."""
        rows = self.height // 2 if self.pixel_format == "yuv420p" else self.height
        columns = self.width if self.pixel_format == "yuv444p" else self.width // 2
        return rows, columns

    @property
    def sample_bytes(self) -> int:
        """Bytes of one sample."""
        return 1 if self.bit_depth == 8 else 2

    @property
    def color_bytes(self) -> int:
        """Bytes of the planes Y, U and V of one frame, no padding between rows."""
        rows, columns = self.chroma_shape
        return (self.height * self.width + 2 * rows * columns) * self.sample_bytes

    @property
    def frame_bytes(self) -> int:
        """Bytes of one frame: its planes Y, U, V and, if it has alpha, A."""
        alpha = self.height * self.width * self.sample_bytes
        return self.color_bytes + (alpha if self.has_alpha else 0)

    @property
    def num_pairs(self) -> int:
        """Frame pairs of the whole video."""
        return self.num_frames - 1

    @property
    def num_windows(self) -> int:
        """Items of the whole video."""
        return -(-self.num_pairs // self.pairs_per_item)


@dataclass(frozen=True, slots=True, kw_only=True)
class WindowMeta:
    """What travels with a window beside its tensors."""

    num_pairs: int  # pairs that are real; the rest, up to K, is padding
    pts: tuple[int, ...]  # of the num_pairs + 1 real frames, in the source stream's time base
    cuts: tuple[bool, ...]  # one a real pair: a scene cut lies between its frames
