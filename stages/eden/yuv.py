"""Planar YUV of 8 to 12 bits, as video files hold it, to RGB and back, on tensors of any device.

The RGB is the coded one: gamma, PQ or HLG as the video has it, never linear light.

Chroma is enlarged by repeating it and shrunk by the mean of the pixels it stands for, 2 x 2 in
4:2:0 and 1 x 2 in 4:2:2. Enlarged so, these pixels differ in luma alone, so their mean gives the
same chroma again, up to rounding (and clipping, for colours outside of RGB). A smoother filter
would shift or blur colour at every pass, and show: frames in between stand next to source frames
that pass untouched.
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


@dataclass(frozen=True, slots=True)
class Coding:
    """How one sample of YUV codes a colour."""

    red: float  # share of each primary in luma
    green: float
    blue: float
    black: float  # of luma
    luma_steps: float  # from black to white
    chroma_steps: float  # from one end to the other
    neutral: float  # of chroma
    highest: float  # that a sample can hold

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
        frames: [N, frame_bytes] uint8, planes one after the other; alpha is ignored; not changed.
        facts: size, format, depth, matrix and range.
    """
    coding = coding_of(facts)
    luma, chroma = (plane.float() for plane in _planes(frames, facts))
    # Subtract first: so black is exactly 0, which the cosine similarity of frames asks for.
    luma = luma.sub_(coding.black).div_(coding.luma_steps)
    chroma = chroma.sub_(coding.neutral).div_(coding.chroma_steps)
    return _add_chroma(luma, _color_offsets(chroma, coding)).clamp_(0.0, 1.0)


def rgb_to_planes(rgb: torch.Tensor, facts: VideoFacts, *, out: torch.Tensor) -> None:
    """Write RGB frames to `out` as planar YUV, rounded to the nearest step.

    Args:
        rgb: [N, 3, height, width], float32 in [0, 1].
        facts: size, format, depth, matrix and range.
        out: [N, color_bytes] uint8; every byte is written.
    """
    coding = coding_of(facts)
    to_luma, to_chroma = _planes(out, facts)
    luma = _luma(rgb, coding)
    to_luma.copy_(_to_steps(luma, coding.luma_steps, coding.black, coding))
    rows, columns = facts.chroma_shape
    if (rows, columns) != (facts.height, facts.width):
        rgb = F.avg_pool2d(rgb, (facts.height // rows, facts.width // columns))
        luma = _luma(rgb, coding)
    blue = (rgb[:, 2] - luma).div_(coding.blue_slope)
    to_chroma[:, 0].copy_(_to_steps(blue, coding.chroma_steps, coding.neutral, coding))
    red = (rgb[:, 0] - luma).div_(coding.red_slope)
    to_chroma[:, 1].copy_(_to_steps(red, coding.chroma_steps, coding.neutral, coding))


def coding_of(facts: VideoFacts) -> Coding:
    """Return how the samples of frames of `facts` code colours."""
    red, blue = _RED_BLUE[facts.color_matrix]
    unit = float(2 ** (facts.bit_depth - 8))  # one step of 8 bits
    highest = 256.0 * unit - 1.0
    black, luma_steps, chroma_steps = 0.0, highest, highest
    if facts.color_range == "limited":
        black, luma_steps, chroma_steps = 16.0 * unit, 219.0 * unit, 224.0 * unit
    green, neutral = 1.0 - red - blue, 128.0 * unit
    return Coding(red, green, blue, black, luma_steps, chroma_steps, neutral, highest)


def _planes(frames: torch.Tensor, facts: VideoFacts) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the views luma [N, height, width] and chroma [N, 2, rows, columns]."""
    samples = frames[:, : facts.color_bytes]
    if facts.sample_bytes == 2:
        samples = samples.view(torch.int16)  # 12 bits at most: no sample looks negative
    num_luma = facts.height * facts.width
    luma = torch.unflatten(samples[:, :num_luma], 1, (facts.height, facts.width))
    return luma, torch.unflatten(samples[:, num_luma:], 1, (2, *facts.chroma_shape))


def _color_offsets(chroma: torch.Tensor, coding: Coding) -> torch.Tensor:
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


def _luma(rgb: torch.Tensor, coding: Coding) -> torch.Tensor:
    luma = rgb[:, 0] * coding.red
    return luma.add_(rgb[:, 1], alpha=coding.green).add_(rgb[:, 2], alpha=coding.blue)


def _to_steps(values: torch.Tensor, steps: float, zero: float, coding: Coding) -> torch.Tensor:
    """Return steps, not yet as integers. Full range U and V would reach half a step too far."""
    return (values * steps).add_(zero).round_().clamp_(0.0, coding.highest)
