"""Tells a scene cut from motion: a pure function of the two frames of a pair, whatever the window.

Both frames become small pictures, freed of brightness and contrast (so flicker and fades do not
count), and each block of the later one is looked for around its place in the earlier one (so pans,
zooms and moving things do not count). Smooth pictures match anything somewhat; so what cannot be
found is measured against what cannot be found in mirror images of the earlier frame.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from stages.video.pixels import Samples

Thumbnail = NDArray[np.float32]  # [3, _ROWS, _COLUMNS]: Y, U, V, 0..255

_ROWS, _COLUMNS = 18, 32
_SAMPLES = 4  # of a plane, in each direction, that make one value of a thumbnail
_BLOCK_ROWS, _BLOCK_COLUMNS = 6, 8
_REACH_ROWS, _REACH_COLUMNS = 4, 8  # a quarter of the picture from frame to frame
_ALIKE = 0.12  # a difference, of at most 2, below which no cut was seen, and no search is needed
_NO_COLOR = 128
_FLAT = 2.0  # a standard deviation below this is a blank picture, where nothing can be found
_BLANK_STEP = 32.0  # mean difference at which going to or from a blank picture is a cut, no fade


def thumbnail(planes: Sequence[Samples], bit_depth: int = 8) -> Thumbnail:
    """Return the small picture of the planes Y [H, W], U and V that `cut_score` compares."""
    return np.stack([_small(plane) for plane in planes[:3]]) / np.float32(2 ** (bit_depth - 8))


def cut_score(earlier: Thumbnail, later: Thumbnail) -> float:
    """Return how little `later` has to do with `earlier`: 0 the same scene, about 1 another one."""
    deviations = float(earlier[0].std()), float(later[0].std())
    if min(deviations) < _FLAT:
        step = float(np.abs(earlier[0] - later[0]).mean())
        return 1.0 if step > _BLANK_STEP and max(deviations) >= _FLAT else 0.0
    a, b = _normalized(earlier, deviations[0]), _normalized(later, deviations[1])
    in_place = float(np.square(a - b).sum(axis=0).mean()) / 2
    if in_place < _ALIKE:
        return in_place
    missing = _not_found(a, b)
    if missing < _ALIKE:
        return missing
    mirrored = [a[:, ::-1], a[:, :, ::-1], a[:, ::-1, ::-1]]
    by_chance = sum(_not_found(other, b) for other in mirrored) / len(mirrored)
    return missing / max(by_chance, _ALIKE)


def _small(plane: Samples) -> NDArray[np.float32]:
    rows = np.arange(_ROWS * _SAMPLES) * plane.shape[0] // (_ROWS * _SAMPLES)
    columns = np.arange(_COLUMNS * _SAMPLES) * plane.shape[1] // (_COLUMNS * _SAMPLES)
    sampled = plane[rows[:, None], columns].reshape(_ROWS, _SAMPLES, _COLUMNS, _SAMPLES)
    # 16 samples of 12 bits just fit.
    sums: NDArray[np.float32] = sampled.sum(axis=(1, 3), dtype=np.uint16).astype(np.float32)
    return sums / np.float32(_SAMPLES * _SAMPLES)


def _normalized(picture: Thumbnail, deviation: float) -> Thumbnail:
    origin = np.array([picture[0].mean(), _NO_COLOR, _NO_COLOR], np.float32)
    return (picture - origin[:, None, None]) / np.float32(deviation)


def _not_found(a: Thumbnail, b: Thumbnail) -> float:
    """Return the difference of the blocks of `b` from the likest ones of `a` around them."""
    reach = ((0, 0), (_REACH_ROWS, _REACH_ROWS), (_REACH_COLUMNS, _REACH_COLUMNS))
    around = np.pad(a, reach, mode="edge")
    best = _by_block(b - a)
    for row in range(2 * _REACH_ROWS + 1):
        for column in range(2 * _REACH_COLUMNS + 1):
            moved = around[:, row : row + _ROWS, column : column + _COLUMNS]
            np.minimum(best, _by_block(b - moved), out=best)
    return float(best.sum()) / (2 * _ROWS * _COLUMNS)


def _by_block(difference: Thumbnail) -> NDArray[np.float32]:
    squares = np.square(difference).sum(axis=0)
    blocks = squares.reshape(
        _ROWS // _BLOCK_ROWS, _BLOCK_ROWS, _COLUMNS // _BLOCK_COLUMNS, _BLOCK_COLUMNS
    )
    sums: NDArray[np.float32] = blocks.sum(axis=(1, 3))
    return sums
