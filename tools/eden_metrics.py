"""How near a picture is to the truth: PSNR and SSIM, and a table of them.

Legend: N pictures; all are [N, 3, height, width] in [0, 1].
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F

HIGHEST = 100.0  # dB, of equal pictures: so that a mean over some of them stays a number
WINDOW, SPREAD = 11, 1.5  # pixels, of SSIM's Gaussian
MEAN_FLOOR, VARIANCE_FLOOR = 0.01**2, 0.03**2


def psnr(shown: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
    """Return dB of each picture [N], at most `HIGHEST`."""
    error = (shown.double() - truth.double()).square().mean((1, 2, 3))
    return (-10 * torch.log10(error.clamp_min(1e-30))).clamp_max(HIGHEST)


def ssim(shown: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
    """Return the structural similarity of each picture [N], the mean of the three colours'.

    Source: Wang et al., Image quality assessment, 2004; a Gaussian window, inside the picture.
    """
    x, y = shown.flatten(0, 1)[:, None].double(), truth.flatten(0, 1)[:, None].double()
    mean_x, mean_y = _blur(x), _blur(y)
    variance_x, variance_y = _blur(x * x) - mean_x**2, _blur(y * y) - mean_y**2
    covariance = _blur(x * y) - mean_x * mean_y
    light = (2 * mean_x * mean_y + MEAN_FLOOR) / (mean_x**2 + mean_y**2 + MEAN_FLOOR)
    shape = (2 * covariance + VARIANCE_FLOOR) / (variance_x + variance_y + VARIANCE_FLOOR)
    return (light * shape).mean((1, 2, 3)).view(shown.shape[0], -1).mean(1)


def _blur(x: torch.Tensor) -> torch.Tensor:
    places = torch.arange(WINDOW, dtype=x.dtype, device=x.device) - WINDOW // 2
    line = torch.exp(-(places**2) / (2 * SPREAD**2))
    line = line / line.sum()
    return F.conv2d(F.conv2d(x, line.view(1, 1, 1, -1)), line.view(1, 1, -1, 1))


@dataclass(frozen=True, slots=True)
class Score:
    """What one way of guessing the middle picture reaches, a mean over triplets."""

    name: str
    psnr: float  # dB
    ssim: float


Guess = Callable[[torch.Tensor, torch.Tensor, int], torch.Tensor]


def average(before: torch.Tensor, after: torch.Tensor, _number: int) -> torch.Tensor:
    """Return the average of the two pictures."""
    return (before + after) / 2


def nearest(before: torch.Tensor, _after: torch.Tensor, _number: int) -> torch.Tensor:
    """Return the nearest picture: both are equally near, so the earlier, as a player shows it."""
    return before


def score(
    triplets: Iterable[tuple[torch.Tensor, torch.Tensor, torch.Tensor]],
    guesses: dict[str, Guess],
) -> tuple[int, list[Score]]:
    """Return how many triplets there are, and what each guess reaches.

    Args:
        triplets: before, middle and after, each [1, 3, height, width].
        guesses: by name; what they return is rounded to 8 bits, as it would be in a file.
    """
    levels: dict[str, list[tuple[float, float]]] = {name: [] for name in guesses}
    for number, (before, middle, after) in enumerate(triplets):
        for name, guess in guesses.items():
            shown = (guess(before, after, number).clamp(0, 1) * 255).round() / 255
            levels[name].append((float(psnr(shown, middle)), float(ssim(shown, middle))))
    count = len(next(iter(levels.values())))
    return count, [
        Score(name, *(sum(column) / count for column in zip(*some, strict=True)))
        for name, some in levels.items()
        if some
    ]


def table(title: str, count: int, scores: Sequence[Score]) -> str:
    """Return a few lines of text; every score beside the average's."""
    reference = next((one.psnr for one in scores if one.name == "average"), float("nan"))
    lines = [f"{title}: {count} triplets", f"{'':10}{'PSNR':>8}{'SSIM':>9}{'over average':>15}"]
    lines += [
        f"{one.name:10}{one.psnr:8.2f}{one.ssim:9.4f}{one.psnr - reference:+12.2f} dB"
        for one in scores
    ]
    return "\n".join(lines)
