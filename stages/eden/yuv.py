"""Planar 8-bit YUV, as video files hold it, to RGB and back, on torch tensors of any device.

Chroma is enlarged by repeating it and shrunk by the mean of 2 x 2 pixels. Enlarged so, the four
pixels of a chroma sample differ in luma alone, so their mean gives the same chroma again, up to
rounding (and clipping, for colours outside of RGB). A smoother filter would shift or blur colour
at every pass, and show: frames in between stand next to source frames that pass untouched.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F

from stages.window import ColorMatrix, VideoFacts

_RED_BLUE: dict[ColorMatrix, tuple[float, float]] = {
    "bt601": (0.299, 0.114),
    "bt709": (0.2126, 0.0722),
    "bt2020": (0.2627, 0.0593),
}
_NEUTRAL = 128.0


@dataclass(frozen=True, slots=True)
class _Coding:
    """How one sample of YUV codes a colour."""

    red: float  # share of each primary in luma
    green: float
    blue: float
    black: float  # of luma, in 8-bit steps
    luma_steps: float  # from black to white
    chroma_steps: float  # from one end to the other

    @property
    def red_slope(self) -> float:
        """(red - luma) for one unit of V."""
        return 2.0 * (1.0 - self.red)

    @property
    def blue_slope(self) -> float:
        """(blue - luma) for one unit of U."""
        return 2.0 * (1.0 - self.blue)


def planes_to_rgb(frames: torch.Tensor, facts: VideoFacts) -> torch.Tensor:
    """Return RGB [N, 3, height, width], float32 in [0, 1], of planar YUV frames.

    Args:
        frames: [N, frame_bytes] uint8, planes Y, U, V one after the other; not changed.
        facts: size, format, matrix and range.
    """
    coding = _coding(facts)
    luma, chroma = (plane.float() for plane in _planes(frames, facts))
    # Subtract first: so black is exactly 0, which the cosine similarity of frames asks for.
    luma = luma.sub_(coding.black).div_(coding.luma_steps)
    chroma = chroma.sub_(_NEUTRAL).div_(coding.chroma_steps)
    return _add_chroma(luma, _color_offsets(chroma, coding)).clamp_(0.0, 1.0)


def rgb_to_planes(rgb: torch.Tensor, facts: VideoFacts, *, out: torch.Tensor) -> None:
    """Write RGB frames to `out` as planar YUV, rounded to the nearest step.

    Args:
        rgb: [N, 3, height, width], float32 in [0, 1].
        facts: size, format, matrix and range.
        out: [N, frame_bytes] uint8; every byte is written.
    """
    coding = _coding(facts)
    to_luma, to_chroma = _planes(out, facts)
    luma = _luma(rgb, coding)
    to_luma.copy_(_to_steps(luma, coding.luma_steps, coding.black))
    if facts.pixel_format == "yuv420p":
        rgb = F.avg_pool2d(rgb, 2)
        luma = _luma(rgb, coding)
    blue = (rgb[:, 2] - luma).div_(coding.blue_slope)
    to_chroma[:, 0].copy_(_to_steps(blue, coding.chroma_steps, _NEUTRAL))
    red = (rgb[:, 0] - luma).div_(coding.red_slope)
    to_chroma[:, 1].copy_(_to_steps(red, coding.chroma_steps, _NEUTRAL))


def _coding(facts: VideoFacts) -> _Coding:
    red, blue = _RED_BLUE[facts.color_matrix]
    limited = facts.color_range == "limited"
    black, luma_steps, chroma_steps = (16.0, 219.0, 224.0) if limited else (0.0, 255.0, 255.0)
    return _Coding(red, 1.0 - red - blue, blue, black, luma_steps, chroma_steps)


def _planes(frames: torch.Tensor, facts: VideoFacts) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the views luma [N, height, width] and chroma [N, 2, rows, columns]."""
    num_luma = facts.height * facts.width
    luma = torch.unflatten(frames[:, :num_luma], 1, (facts.height, facts.width))
    return luma, torch.unflatten(frames[:, num_luma:], 1, (2, *facts.chroma_shape))


def _color_offsets(chroma: torch.Tensor, coding: _Coding) -> torch.Tensor:
    """Return [N, 3, rows, columns]: what U and V [N, 2, rows, columns] add to luma."""
    blue, red = chroma[:, 0] * coding.blue_slope, chroma[:, 1] * coding.red_slope
    green = blue * (-coding.blue / coding.green) - red * (coding.red / coding.green)
    return torch.stack([red, green, blue], 1)


def _add_chroma(luma: torch.Tensor, offsets: torch.Tensor) -> torch.Tensor:
    """Return [N, 3, height, width]; each offset is repeated over the pixels it stands for."""
    rows, columns = offsets.shape[-2:]
    blocks = torch.unflatten(luma[:, None], 3, (columns, -1))
    blocks = torch.unflatten(blocks, 2, (rows, -1))
    return (blocks + offsets[:, :, :, None, :, None]).flatten(4, 5).flatten(2, 3)


def _luma(rgb: torch.Tensor, coding: _Coding) -> torch.Tensor:
    luma = rgb[:, 0] * coding.red
    return luma.add_(rgb[:, 1], alpha=coding.green).add_(rgb[:, 2], alpha=coding.blue)


def _to_steps(values: torch.Tensor, steps: float, zero: float) -> torch.Tensor:
    """Return 8-bit steps, not yet as bytes. Full range U and V would reach 255.5."""
    return (values * steps).add_(zero).round_().clamp_(0.0, 255.0)
