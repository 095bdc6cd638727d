"""The two scenes of the demo clip as functions of time; `make_clip.py` renders them to files.

Each is drawn back to front from layers at many depths, which a moving, turning, zooming camera
sees; all is computed where the samples lie, so motion is exact to any fraction of a pixel.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

Picture = NDArray[np.floating[Any]]
Color = tuple[float, float, float]

WIDTH, HEIGHT = 480, 270
SHARP = 2  # samples of a pixel in each direction: antialiasing
LATTICE = np.random.default_rng(7).random((256, 256), np.float32)
Y, X = np.mgrid[0 : HEIGHT * SHARP, 0 : WIDTH * SHARP].astype(np.float32) / SHARP
X -= WIDTH / 2
Y -= HEIGHT / 2  # pixels from the middle, y downwards


def noise(x: Picture, y: Picture | float) -> Picture:
    """Return smooth noise, 0..1, with features of the size of one unit."""
    column, row = np.floor(x).astype(np.int32), np.floor(y).astype(np.int32)
    u, v = x - column, y - row
    u, v = u * u * (3 - 2 * u), v * v * (3 - 2 * v)
    corners = [LATTICE[(row + j) & 255, (column + i) & 255] for j in (0, 1) for i in (0, 1)]
    upper = corners[0] + (corners[1] - corners[0]) * u
    lower = corners[2] + (corners[3] - corners[2]) * u
    return np.asarray(upper + (lower - upper) * v, np.float32)


def rough(x: Picture, y: Picture | float) -> Picture:
    """Return noise of three sizes, 0..1."""
    return (4 * noise(x, y) + 2 * noise(2 * x, 2 * y + 31) + noise(4 * x, 4 * y + 77)) / 7


def paint(canvas: Picture, mask: NDArray[np.bool_], color: Color, shade: Picture | None) -> None:
    """Fill `mask` with `color`, lit by `shade` [number of samples in the mask] if given."""
    lit = np.asarray(color, np.float32)
    canvas[mask] = lit if shade is None else lit * shade[:, None]


def camera(x: float, zoom: float, roll: float) -> tuple[Picture, Picture]:
    """Return where each sample of the picture lies in a layer."""
    c, s = math.cos(roll) / zoom, math.sin(roll) / zoom
    return c * X + s * Y + x, c * Y - s * X


def segment(x: Picture, y: Picture, a: tuple[float, float], b: tuple[float, float]) -> Picture:
    """Return the distance of each sample from the line between `a` and `b`."""
    dx, dy = b[0] - a[0], b[1] - a[1]
    along = np.clip(((x - a[0]) * dx + (y - a[1]) * dy) / (dx * dx + dy * dy), 0, 1)
    return np.hypot(x - a[0] - along * dx, y - a[1] - along * dy)


def sky(top: Color, bottom: Color, x: Picture, y: Picture) -> Picture:
    """Return a canvas of graded sky with thin clouds."""
    fade = np.clip((Y / HEIGHT + 0.5) * 1.5, 0, 1)[..., None]
    canvas = np.array(top, np.float32) * (1 - fade) + np.array(bottom, np.float32) * fade
    clouds = np.clip(rough(x / 90, y / 26) * 2.4 - 1.1, 0, 1)[..., None] * 0.55
    return np.asarray(
        canvas * (1 - clouds) + np.array((1.0, 0.93, 0.86), np.float32) * clouds, np.float32
    )


def valley(t: float) -> Picture:
    """Return scene 1 at `t` seconds: ridges at dusk, a balloon, a fence and a tree close by."""

    def layer(depth: float) -> tuple[Picture, Picture]:
        return camera(26 * t * depth, 1 + 0.02 * t * depth, 0.02 * math.sin(t))

    x, y = layer(0.2)
    canvas = sky((0.30, 0.42, 0.68), (1.0, 0.74, 0.52), x, y)
    paint(canvas, np.hypot(x - 95, y + 32) < 24, (1.0, 0.93, 0.72), None)
    ridges: list[tuple[float, float, float, Color]] = [
        (0.35, -14, 62, (0.56, 0.53, 0.70)),
        (0.6, 16, 54, (0.42, 0.44, 0.58)),
        (1.1, 52, 46, (0.27, 0.40, 0.40)),
    ]
    for number, (depth, base, height, color) in enumerate(ridges):
        x, y = layer(depth)
        crest = base + height * (0.5 - rough(x / 95 + 40 * number, 9.0 * number))
        m = y > crest
        paint(canvas, m, color, 0.72 + 0.5 * rough(x[m] / 9, y[m] / 9 + 50 * number))
        if number == 1:
            balloon(canvas, x - 75, y + 52 - 5 * math.sin(1.3 * t) + 9 * t)
    x, y = layer(2.2)
    m = y > 104 + 14 * (rough(x / 120, 5.0) - 0.5)
    paint(canvas, m, (0.36, 0.47, 0.22), 0.55 + 0.9 * rough(x[m] / 5, y[m] / 11))
    tree(canvas, x - 190, y)
    x, y = layer(3.0)
    nearest = np.abs((x + 35) % 70 - 35)
    m = (nearest < 2.6) & (y > 72)
    paint(canvas, m, (0.30, 0.21, 0.16), 0.7 + 0.6 * noise(x[m], y[m] / 6))
    for wire in (82, 100):
        paint(canvas, np.abs(y - wire - nearest**2 / 400) < 0.8, (0.14, 0.13, 0.15), None)
    return canvas


def balloon(canvas: Picture, x: Picture, y: Picture) -> None:
    """Draw a striped balloon with its basket around the origin."""
    for rope in (-12, -4, 4, 12):
        paint(canvas, segment(x, y, (rope, 24), (rope / 2.5, 47)) < 0.6, (0.2, 0.15, 0.15), None)
    inside = np.hypot(x, np.where(y > 0, y * 0.85, y)) < 29
    stripe = np.sin(x / np.maximum(np.sqrt(np.maximum(30**2 - y**2, 1)), 4) * 9) > 0
    light = np.clip(1.05 - (x + y) / 90, 0.6, 1.2)
    for m, color in ((inside & stripe, (0.86, 0.27, 0.22)), (inside & ~stripe, (0.98, 0.85, 0.58))):
        paint(canvas, m, color, light[m])
    paint(canvas, (np.abs(x) < 5) & (np.abs(y - 50) < 4), (0.45, 0.29, 0.17), None)


def tree(canvas: Picture, x: Picture, y: Picture) -> None:
    """Draw a tree with bare branches and some leaves, its foot below the origin."""
    trunk = 7 + np.clip(y + 10, 0, 200) / 18
    m = (np.abs(x) < trunk) & (y > -30)
    paint(canvas, m, (0.24, 0.17, 0.15), 0.6 + noise(x[m] / 2, y[m] / 9))
    ragged = rough(x / 7, y / 7)
    for tip, reach in ((-58, -88), (-30, -112), (4, -125), (36, -104), (62, -80)):
        paint(canvas, segment(x, y, (tip / 9, -20), (tip, reach)) < 2.4, (0.22, 0.16, 0.14), None)
        m = np.hypot(x - tip, y - reach) + 26 * (ragged - 0.5) < 19
        paint(canvas, m, (0.62, 0.36, 0.14), 0.55 + 0.9 * noise(x[m] / 3, y[m] / 3))


def harbour(t: float) -> Picture:
    """Return scene 2 at `t` seconds: a turning wheel by the sea, an airship passing behind it."""

    def layer(depth: float) -> tuple[Picture, Picture]:
        return camera(9 * t * depth - 8, 1 + 0.07 * t * depth, 0.07 * math.sin(0.8 * t) * depth)

    x, y = layer(0.4)
    canvas = sky((0.16, 0.45, 0.60), (0.80, 0.90, 0.86), x + 8 * t, y)
    x, y = layer(0.7)
    ship_x, ship_y = x + 190 - 62 * t, y + 46
    inside = np.hypot(ship_x / 2.7, ship_y) < 17
    paint(canvas, inside, (0.93, 0.93, 0.96), np.clip(0.95 - ship_y[inside] / 45, 0.5, 1.1))
    paint(canvas, inside & (np.abs(ship_y - 2) < 2.5), (0.80, 0.22, 0.25), None)
    paint(canvas, np.hypot((ship_x - 4) / 2, ship_y - 19) < 4.5, (0.32, 0.33, 0.40), None)
    m = y > 62
    waves = rough(x[m] / 22 + 0.5 * t, (y[m] - 60) * np.abs(y[m] - 40) / 260)
    paint(canvas, m, (0.12, 0.42, 0.52), 0.6 + 0.85 * waves)
    x, y = layer(1.0)
    wheel(canvas, x - 20, y + 8, 0.34 * t)
    x, y = layer(1.9)
    m = y > 96 + 5 * (noise(x / 60, 3.0) - 0.5)
    bricks = 0.8 + 0.25 * noise(np.floor(x[m] / 14), np.floor(y[m] / 6)) - 0.3 * (y[m] % 6 < 0.8)
    paint(canvas, m, (0.55, 0.43, 0.38), bricks + 0.2 * rough(x[m] / 3, y[m] / 3))
    for post in range(-400, 401, 80):
        lamp_x = x - post - 30
        paint(canvas, (np.abs(lamp_x) < 1.3) & (y > 34) & (y < 100), (0.13, 0.15, 0.2), None)
        paint(canvas, np.hypot(lamp_x, y - 32) < 4.5, (1.0, 0.92, 0.66), None)
    return canvas


def wheel(canvas: Picture, x: Picture, y: Picture, angle: float) -> None:
    """Draw a Ferris wheel around the origin."""
    steel: Color = (0.90, 0.90, 0.93)
    for foot in (-46, 46):
        paint(canvas, segment(x, y, (0, 0), (foot, 120)) < 2.4, (0.30, 0.32, 0.38), None)
    paths = np.hypot(x, y)
    for number in range(12):
        a = angle + number * math.pi / 6
        rim = 88 * math.cos(a), 88 * math.sin(a)
        paint(canvas, segment(x, y, (0, 0), rim) < 0.75, steel, None)
    for radius in (60, 84, 88):
        paint(canvas, np.abs(paths - radius) < 1.0, steel, None)
    colors: list[Color] = [(0.88, 0.30, 0.28), (0.96, 0.74, 0.25), (0.26, 0.56, 0.44)]
    for number in range(12):
        a = angle + number * math.pi / 6
        gx, gy = x - 88 * math.cos(a), y - 88 * math.sin(a) - 6
        body = np.hypot(gx, gy * 0.9) < 8.5
        paint(canvas, body, colors[number % 3], np.clip(1.0 - gy[body] / 24, 0.6, 1.25))
        paint(canvas, body & (np.abs(gy + 1) < 2.4), (0.85, 0.93, 0.95), None)
    paint(canvas, paths < 7, (0.32, 0.34, 0.42), None)
