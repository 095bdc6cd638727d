"""Triplets rendered on the device as training goes: layers that move, turn, grow and bend.

A scene is a background and up to five layers before it, each a texture within an outline, seen by
a camera that pans, turns and zooms; layers close by move more. It is drawn at the times -1, 0 and
1, so that the middle picture lies half-way on every path.

Legend: B scenes, T texels of a side. Places in a picture are complex numbers, in pixels from its
middle, y downwards: so turning and growing is one factor.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from tools.eden_outlines import outlines
from tools.eden_textures import Dice, textures

REFERENCE_WIDTH = 448  # pixels, at which motion is stated
MAX_MOTION = 60.0  # pixels between the outer pictures, at the reference width
TEXTURE, OUTLINE = 512, 256  # texels
# Of the outer pictures, as a share of the most motion, and how often each is drawn.
DISTANCES = ((1.0, 0.6), (0.5, 0.25), (0.25, 0.12), (0.0, 0.03))
MAX_BEND = 6.0  # pixels for half the time, at the reference width
SPIN, GROWTH = 0.1, 0.06  # radians and log of the size for half the time, at most


@dataclass(frozen=True, slots=True)
class Layer:
    """One kind of layer: how often it is there, and what it looks like."""

    share: float
    wide: bool  # fills the width, and goes on for ever
    is_thing: bool  # moves on its own


LAYERS = (
    Layer(share=0.55, wide=True, is_thing=False),
    Layer(share=0.6, wide=False, is_thing=True),
    Layer(share=0.4, wide=True, is_thing=False),
    Layer(share=0.6, wide=False, is_thing=True),
    Layer(share=0.5, wide=False, is_thing=True),
)


class Paint:
    """Textures and outlines in stock; a few are made anew all the time."""

    def __init__(self, dice: Dice, pictures: list[torch.Tensor], stock: int) -> None:
        self._dice, self._pictures, self.stock = dice, pictures, stock
        device = dice.device
        self.textures = torch.empty(stock, 3, TEXTURE, TEXTURE, dtype=torch.float16, device=device)
        shape = (stock, 1, OUTLINE, OUTLINE)
        self.things, self.wide = (
            torch.empty(shape, dtype=torch.float16, device=device) for _ in range(2)
        )
        self._next = 0
        for done in range(0, stock, 16):
            self.refresh(min(16, stock - done))

    def refresh(self, count: int) -> None:
        """Make `count` of each kind anew, the oldest first."""
        places = [(self._next + i) % self.stock for i in range(count)]
        self._next = (self._next + count) % self.stock
        size = len(places)
        self.textures[places] = textures(self._dice, self._pictures, size, TEXTURE).half()
        self.things[places] = outlines(self._dice, size, OUTLINE, wide=False).half()
        self.wide[places] = outlines(self._dice, size, OUTLINE, wide=True).half()


@dataclass(frozen=True, slots=True)
class Place:
    """Where a picture lies in a layer at each time: z in the picture is factor * z + shift."""

    factor: torch.Tensor  # [B, 3 times] complex
    shift: torch.Tensor

    def minus(self, shift: torch.Tensor) -> Place:
        """Return the same, seen from `shift` [B, 1]."""
        return Place(self.factor, self.shift - shift)

    def times(self, factor: torch.Tensor) -> Place:
        """Return the same, turned and enlarged."""
        return Place(self.factor * factor, self.shift * factor)


@dataclass(frozen=True, slots=True)
class Motion:
    """How a thing or the camera moves in half the time; each [B, 1] complex."""

    path: torch.Tensor  # pixels
    turn: torch.Tensor  # log of the size, and radians

    def scaled(self, by: torch.Tensor) -> Motion:
        """Return the motion of something farther away."""
        return Motion(self.path * by, self.turn * by)

    def undo(self, place: Place) -> Place:
        """Return where it was at time 0."""
        time = torch.arange(-1.0, 2.0, device=self.path.device)
        return place.minus(self.path * time).times(torch.exp(-self.turn * time))


class Renderer:
    """Draws scenes of one size, as crops of frames of another."""

    def __init__(
        self, paint: Paint, dice: Dice, height: int, width: int, frame_width: int | None = None
    ) -> None:
        self._paint, self._dice = paint, dice
        self._height, self._width = height, width
        self._scale = (frame_width or width) / REFERENCE_WIDTH
        self._y = torch.arange(height, device=dice.device) + 0.5 - height / 2
        self._x = torch.arange(width, device=dice.device) + 0.5 - width / 2
        self._bend_down = _bicubic(4, height, dice.device)
        self._bend_across = _bicubic(6, width, dice.device)
        some, weights = torch.tensor(DISTANCES, device=dice.device).unbind(1)
        self._distances, self._limits = some.contiguous(), weights.cumsum(0)[:-1]

    def render(self, n: int, distance: float | None = None) -> torch.Tensor:
        """Return [3, B, 3, height, width] in [0, 1]: the picture before, between and after.

        Args:
            n: B.
            distance: of the outer pictures, as a share of the most; None: now this, now that.
        """
        dice = self._dice
        far = self._distances[torch.bucketize(dice.uniform(n, 1), self._limits)]
        if distance is not None:
            far = torch.full_like(far, distance)
        share = dice.uniform(n, 1)  # of the camera; the rest is the things' own
        camera = self._motion(n, far, share)
        depth = dice.uniform(n, 1, low=0.1, high=1.0)
        still = Place(
            torch.ones(n, 1, dtype=torch.complex64, device=dice.device),
            torch.zeros(n, 1, dtype=torch.complex64, device=dice.device),
        )
        canvas = self._colors(n, self._grid(camera.scaled(depth).undo(still), far))
        for layer in LAYERS:
            depth = depth + dice.uniform(n, 1) * (1 - depth) * 0.6
            place = camera.scaled(depth).undo(still)
            canvas = self._draw(layer, canvas, place, far, 1 - share)
        return self._light(canvas, far).clamp_(0, 1).permute(2, 0, 1, 3, 4).contiguous()

    def _motion(self, n: int, far: torch.Tensor, share: torch.Tensor) -> Motion:
        dice = self._dice
        reach = MAX_MOTION / 2 * self._scale * dice.uniform(n, 1) * share * far
        angle, flat = dice.uniform(n, 1, high=2 * math.pi), dice.uniform(n, 1)
        path = torch.complex(angle.cos() * reach, angle.sin() * reach * flat)  # level more often
        turning = dice.chance(0.5, n, 1) * far * share
        growth, spin = (dice.uniform(n, 1, low=-m, high=m) * turning for m in (GROWTH, SPIN))
        return Motion(path, torch.complex(growth, spin))

    def _grid(self, place: Place, far: torch.Tensor) -> torch.Tensor:
        """Return each pixel's place in the layer [B, 3 times, H, W, 2], in some scenes bent."""
        factor, shift = (part.expand(-1, 3) for part in (place.factor, place.shift))
        c, s, u, v = factor.real, factor.imag, shift.real, shift.imag
        c, s, u, v = (part[..., None] for part in (c, s, u, v))
        across = torch.stack([c * self._x, s * self._x], -1)[:, :, None]
        down = torch.stack([u - s * self._y, v + c * self._y], -1)[:, :, :, None]
        dice, n = self._dice, far.shape[0]
        bent = far * dice.chance(0.3, n, 1) * dice.uniform(n, 1)
        coarse = dice.normal(n, 2, 4, 6) * (MAX_BEND * self._scale * bent)[..., None, None]
        field = self._bend_down @ coarse @ self._bend_across.mT
        time = torch.arange(-1.0, 2.0, device=dice.device)[:, None, None, None]
        return torch.addcmul(across + down, field.permute(0, 2, 3, 1).contiguous()[:, None], time)

    def _colors(self, n: int, grid: torch.Tensor) -> torch.Tensor:
        """Return a texture [B, 3 colours, 3 times, H, W] at the places of `grid`."""
        dice = self._dice
        fine = dice.log_uniform(n, 1, 1, 1, 1, low=0.4, high=1.1) * (2 / TEXTURE)
        offset = dice.uniform(n, 1, 1, 1, 2, low=-0.5, high=0.5)
        stock = self._paint.textures[dice.integers(self._paint.stock, n)]
        return _sample(stock, torch.addcmul(offset, grid, fine), "reflection")

    def _draw(
        self,
        layer: Layer,
        canvas: torch.Tensor,
        place: Place,
        far: torch.Tensor,
        share: torch.Tensor,
    ) -> torch.Tensor:
        """Return the canvas with one more layer; things take their share of the motion."""
        dice, n = self._dice, far.shape[0]
        half = torch.full((n, 1), REFERENCE_WIDTH / 2 * self._scale, device=dice.device)
        if layer.is_thing:
            half = dice.log_uniform(n, 1, low=16, high=170) * self._scale
            x, y = dice.uniform(2, n, 1, low=-0.55, high=0.55)
            place = place.minus(torch.complex(self._width * x, self._height * y))
            own = self._motion(n, far, share * dice.chance(0.8, n, 1))
            angle = dice.uniform(n, 1, low=-0.8, high=0.8)
            place = own.undo(place).times(torch.complex(angle.cos(), angle.sin()))
        grid, half = self._grid(place, far), half[..., None, None, None]
        stock = self._paint.wide if layer.wide else self._paint.things
        beyond = "reflection" if layer.wide else "border"
        outline = _sample(stock[dice.integers(self._paint.stock, n)], grid / half, beyond)
        there = dice.chance(layer.share, n, 1, 1, 1, 1)
        cover = torch.addcmul(there / 2, outline, -half * there).clamp_(0, 1)
        return torch.lerp(canvas, self._colors(n, grid), cover)

    def _light(self, canvas: torch.Tensor, far: torch.Tensor) -> torch.Tensor:
        """Let some of the scenes grow brighter or darker."""
        dice, n = self._dice, far.shape[0]
        time = torch.arange(-1.0, 2.0, device=dice.device)[:, None, None]
        changing = (dice.chance(0.25, n, 1) * far)[..., None, None, None]
        gain = dice.uniform(n, 1, 1, 1, 1, low=-0.08, high=0.08) * changing
        lift = dice.uniform(n, 3, 1, 1, 1, low=-0.04, high=0.04) * changing
        return torch.addcmul(lift * time, canvas, 1 + gain * time)


def _bicubic(points: int, size: int, device: torch.device) -> torch.Tensor:
    """Return the matrix [size, points] that enlarges; far faster than torch's kernel for it."""
    one = torch.eye(points, device=device).view(1, points, points, 1)
    return F.interpolate(one, (size, 1), mode="bicubic", align_corners=True)[0, :, :, 0].mT


def _sample(stock: torch.Tensor, grid: torch.Tensor, beyond: str) -> torch.Tensor:
    """Return [B, channels, 3, H, W] of [B, channels, T, T] at the grid's places in -1..1."""
    n, times, height, width, _ = grid.shape
    flat = grid.view(n, times * height, width, 2)
    found = F.grid_sample(stock.float(), flat, padding_mode=beyond, align_corners=False)
    return found.view(n, -1, times, height, width)
