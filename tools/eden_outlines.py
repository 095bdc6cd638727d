"""Outlines of the training scenes' layers: things with an end, and things that fill a width.

Legend: N outlines, T texels of a side; each is [N, 1, T, T], the signed distance to the edge,
negative inside, where the picture reaches from -1 to 1.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F

from tools.eden_textures import Dice, fractal, square

FAR = 4.0


def oval(dice: Dice, n: int, size: int) -> torch.Tensor:
    """Ellipses, boxes and rounded boxes, turned."""
    x, y = square(size, dice.device)
    angle = dice.uniform(n, 1, 1, 1, high=math.pi)
    u, v = angle.cos() * x + angle.sin() * y, angle.cos() * y - angle.sin() * x
    a, b = dice.uniform(2, n, 1, 1, 1, low=0.2, high=0.65)
    ellipse = (torch.hypot(u / a, v / b) - 1) * torch.minimum(a, b)
    over_u, over_v = u.abs() - a, v.abs() - b
    inside = torch.maximum(over_u, over_v).clamp_max(0)
    box = inside + torch.hypot(over_u.clamp_min(0), over_v.clamp_min(0))
    box = box - dice.uniform(n, 1, 1, 1, high=0.2)
    return torch.where(dice.chance(0.5, n, 1, 1, 1) > 0, ellipse, box)


def star(dice: Dice, n: int, size: int) -> torch.Tensor:
    """Flowers and stars with smooth arms."""
    x, y = square(size, dice.device)
    radius, angle = torch.hypot(x, y), torch.atan2(y, x)
    arms = dice.integers(6, n, 1, 1, 1) + 2
    wave = torch.cos(arms * angle + dice.uniform(n, 1, 1, 1, high=6.3))
    return (radius - 0.5 - dice.uniform(n, 1, 1, 1, high=0.3) * wave) * 0.7


def ragged(dice: Dice, n: int, size: int) -> torch.Tensor:
    """Blobs with a rough edge, as of leaves."""
    x, y = square(size, dice.device)
    roughness = dice.uniform(n, 1, 1, 1, low=0.2, high=1.2)
    return (torch.hypot(x, y) - 0.6 + roughness * (fractal(dice, n, size, 8, 8) - 0.5)) * 0.5


def branches(dice: Dice, n: int, size: int) -> torch.Tensor:
    """Straight lines from around one place, or anywhere."""
    x, y = square(size, dice.device)
    distance = torch.full((n, 1, size, size), FAR, device=dice.device)
    scatter = dice.chance(0.5, n, 1, 1, 1) * 0.7
    for _ in range(9):
        ax, ay = dice.uniform(2, n, 1, 1, 1, low=-1, high=1) * scatter
        bx, by = dice.uniform(2, n, 1, 1, 1, low=-0.9, high=0.9)
        dx, dy = bx - ax, by - ay
        along = ((x - ax) * dx + (y - ay) * dy) / (dx * dx + dy * dy + 1e-6)
        along = along.clamp(0, 1)
        line = torch.hypot(x - ax - along * dx, y - ay - along * dy)
        distance = torch.minimum(distance, line - dice.uniform(n, 1, 1, 1, low=0.008, high=0.04))
    return distance


def wheel(dice: Dice, n: int, size: int) -> torch.Tensor:
    """Rings, spokes, and beads on the rim."""
    x, y = square(size, dice.device)
    radius, angle = torch.hypot(x, y), torch.atan2(y, x)
    width = dice.uniform(n, 1, 1, 1, low=0.006, high=0.03)
    count = dice.integers(10, n, 1, 1, 1) + 3
    sector = 2 * math.pi / count
    turned = torch.remainder(angle, sector) - sector / 2
    spokes = torch.maximum((radius * torch.sin(turned)).abs() - width, radius - 0.8)
    inner = dice.uniform(n, 1, 1, 1, low=0.3, high=0.7)
    rings = torch.minimum((radius - 0.8).abs(), (radius - inner).abs()) - width
    across, along = radius * torch.cos(turned) - 0.8, radius * torch.sin(turned)
    beads = torch.hypot(across, along) - dice.uniform(n, 1, 1, 1, low=-0.1, high=0.13)
    return torch.minimum(torch.minimum(spokes, rings), beads)


def crest(dice: Dice, n: int, size: int) -> torch.Tensor:
    """All below a hilly line."""
    _, y = square(size, dice.device)
    line = _walk(dice, n, size)
    steep = dice.uniform(n, 1, 1, 1, low=0.1, high=0.8)
    return y - dice.uniform(n, 1, 1, 1, low=-0.3, high=0.7) - steep * (line - 0.5)


def bars(dice: Dice, n: int, size: int) -> torch.Tensor:
    """Posts at equal distances, above or below some height, or turned."""
    x, y = square(size, dice.device)
    angle = dice.normal(n, 1, 1, 1) * 0.2 + dice.chance(0.2, n, 1, 1, 1) * math.pi / 2
    u, v = angle.cos() * x + angle.sin() * y, angle.cos() * y - angle.sin() * x
    period = dice.log_uniform(n, 1, 1, 1, low=0.15, high=0.8)
    phase = dice.uniform(n, 1, 1, 1)
    nearest = (torch.remainder(u / period + phase, 1) - 0.5).abs() * period
    posts = nearest - dice.log_uniform(n, 1, 1, 1, low=0.006, high=0.05)
    return torch.maximum(posts, dice.uniform(n, 1, 1, 1, low=-1.2, high=0.7) - v)


def wires(dice: Dice, n: int, size: int) -> torch.Tensor:
    """Thin curves across the whole width."""
    _, y = square(size, dice.device)
    distance = torch.full((n, 1, size, size), FAR, device=dice.device)
    sag = dice.uniform(n, 1, 1, 1, high=0.4) * _walk(dice, n, size)
    for _ in range(3):
        height = dice.uniform(n, 1, 1, 1, low=-0.9, high=0.9)
        width = dice.log_uniform(n, 1, 1, 1, low=0.004, high=0.02)
        distance = torch.minimum(distance, (y - height - sag).abs() - width)
    return distance


def foliage(dice: Dice, n: int, size: int) -> torch.Tensor:
    """Holes and islands all over."""
    level = dice.uniform(n, 1, 1, 1, low=0.35, high=0.7)
    return (level - fractal(dice, n, size, 8, 8)) * 0.25


def _walk(dice: Dice, n: int, size: int) -> torch.Tensor:
    """Return a rough curve [N, 1, 1, T], about 0..1."""
    total = torch.zeros(n, 1, 1, size, device=dice.device)
    for octave in range(4):
        points = dice.uniform(n, 1, 4 * 2**octave + 1)
        curve = F.interpolate(points, size, mode="linear", align_corners=True)
        total += curve[:, :, None] / 2**octave
    return total / 1.875


THINGS = (oval, star, ragged, branches, wheel)
WIDE = (crest, crest, bars, wires, foliage)


def outlines(dice: Dice, n: int, size: int, wide: bool) -> torch.Tensor:
    """Return [N, 1, T, T] of every kind in turn, starting anywhere."""
    makers = WIDE if wide else THINGS
    first = int(dice.integers(len(makers), 1))
    kinds = [(first + i) % len(makers) for i in range(n)]
    made = torch.empty(n, 1, size, size, device=dice.device)
    for kind in sorted(set(kinds)):
        places = [i for i, k in enumerate(kinds) if k == kind]
        made[places] = makers[kind](dice, len(places), size).clamp(-FAR, FAR)
    return made
