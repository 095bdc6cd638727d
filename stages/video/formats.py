"""Pixel formats by name: what a frame is kept as, and what an encoder loses least of it with."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from av import VideoFrame

from stages.window import PixelFormat, VideoFacts

_DEPTHS = (8, 10, 12, 16)
_CHROMA: tuple[PixelFormat, ...] = ("yuv420p", "yuv422p", "yuv444p")  # from little to full
_CHROMA_NAMES: dict[PixelFormat, str] = {"yuv420p": "4:2:0", "yuv422p": "4:2:2", "yuv444p": "4:4:4"}
_OTHER_NAMES = {"yuv420p10le": "p010le"}  # the same samples, as hardware wants them
_MAX_TRIES = 4  # formats that are worth trying with one encoder
_WITH_ALPHA = "prores_ks (.mov), ffv1 (.mkv) or libvpx-vp9 (.webm)"


class Layout(NamedTuple):
    """What samples a frame has."""

    chroma: PixelFormat
    bits: int  # of a sample
    has_alpha: bool

    @property
    def name(self) -> str:
        """FFmpeg's name of it."""
        alpha = "yuva" if self.has_alpha else "yuv"
        return self.chroma.replace("yuv", alpha) + ("" if self.bits == 8 else f"{self.bits}le")


def layout_of(facts: VideoFacts) -> Layout:
    """Return what samples the frames of a job have."""
    return Layout(facts.pixel_format, facts.bit_depth, facts.has_alpha)


def kept_layout(frame: VideoFrame) -> Layout:
    """Return as what a frame of a source is kept; most are what they are."""
    parts = frame.format.components
    has_alpha = any(part.is_alpha for part in parts)
    chroma, bits = _kept_chroma(frame), max(part.bits for part in parts)
    kept = next((depth for depth in (8, 10) if bits <= depth), 12)
    if has_alpha and chroma == "yuv420p" and kept == 12:
        kept = 10  # FFmpeg has no such format of 12 bits
    return Layout(chroma, kept, has_alpha)


def lost_by_keeping(frame: VideoFrame) -> list[str]:
    """Return what a source's frame has that `kept_layout` has not."""
    source, kept = frame.format, kept_layout(frame)
    bits = max(part.bits for part in source.components)
    lost = [f"{bits} bits a sample become {kept.bits}"] if bits > kept.bits else []
    if source.is_rgb or source.has_palette:
        return [f"RGB becomes YUV {_CHROMA_NAMES[kept.chroma]}", *lost]
    if len(source.components) > 2:
        columns = frame.width if kept.chroma == "yuv444p" else -(-frame.width // 2)
        rows = -(-frame.height // 2) if kept.chroma == "yuv420p" else frame.height
        chroma = source.components[1]
        if columns < chroma.width or rows < chroma.height:
            lost.append(f"its colour becomes {_CHROMA_NAMES[kept.chroma]}")
    return lost


def encoder_formats(layout: Layout, offered: Sequence[str]) -> list[str]:
    """Return those of the formats that an encoder offers to try for `layout`, best first.

    Alpha is worth more than depth, and depth more than chroma; nothing is better than it is.
    """
    alphas = (True, False) if layout.has_alpha else (False,)
    every = [Layout(c, b, a) for c in _CHROMA for b in _DEPTHS for a in alphas]
    best_first = sorted(every, key=lambda other: _distance(layout, other))
    names = [
        name for other in best_first for name in (other.name, _OTHER_NAMES.get(other.name, ""))
    ]
    return [name for name in names if name in offered][:_MAX_TRIES] or [layout.name]


def lost_by_encoding(layout: Layout, written: str, codec: str) -> list[str]:
    """Return what an encoder that is given the format `written` loses of `layout`."""
    canonical = {other: name for name, other in _OTHER_NAMES.items()}.get(written, written)
    has_alpha = canonical.startswith("yuva")
    chroma, _, bits = canonical.replace("yuva", "yuv").partition("p")
    depth = int(bits.removesuffix("le") or 8)
    lost = []
    if layout.has_alpha and not has_alpha:
        lost.append(f"alpha is dropped: {codec} has none here; take {_WITH_ALPHA}")
    if depth < layout.bits:
        more = "libx264 or libx265" if layout.bits == 10 else "libx265 or ffv1"
        lost.append(
            f"{layout.bits} bits a sample become {depth}: {codec} has no more here; take {more}"
        )
    if _CHROMA.index(f"{chroma}p") < _CHROMA.index(layout.chroma):
        names = _CHROMA_NAMES[layout.chroma], _CHROMA_NAMES[f"{chroma}p"]  # type: ignore[index]
        lost.append(f"colour in {names[0]} becomes {names[1]}: {codec} has no more here")
    return lost


def _kept_chroma(frame: VideoFrame) -> PixelFormat:
    """Return the chroma that is no less than the frame's; full where a size is odd.

    RGB becomes 4:2:0, as players can show it.
    """
    if frame.width % 2 or frame.height % 2:
        return "yuv444p"
    if frame.format.is_rgb or len(frame.format.components) < 3:
        return "yuv420p"
    chroma = frame.format.components[1]
    if chroma.height < frame.height:
        return "yuv420p"
    if chroma.width == frame.width:
        return "yuv444p"
    return "yuv422p" if 2 * chroma.width == frame.width else "yuv420p"


def _distance(wanted: Layout, other: Layout) -> tuple[int, ...]:
    losses = (
        int(wanted.has_alpha) - int(other.has_alpha),
        max(0, wanted.bits - other.bits),
        max(0, _CHROMA.index(wanted.chroma) - _CHROMA.index(other.chroma)),
    )
    excess = other.bits - wanted.bits, _CHROMA.index(other.chroma) - _CHROMA.index(wanted.chroma)
    return (*losses, *excess)
