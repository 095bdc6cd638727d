"""Tells a scene cut from motion: a pure function of the two frames of a pair, whatever the window.

Both frames become small pictures, freed of brightness and contrast (so flicker and fades do not
count), and each block of the later one is looked for around its place in the earlier one (so pans,
zooms and moving things do not count). Smooth pictures match anything somewhat; so what cannot be
found is measured against what cannot be found in mirror images of the earlier frame.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from stages.video.pixels import Bytes, samples_of
from stages.window import VideoFacts

Thumbnails = NDArray[np.float32]  # [frames, 3, _ROWS, _COLUMNS]: Y, U, V, 0..255
Picture = NDArray[np.float32]  # one of them, normalized

_ROWS, _COLUMNS = 18, 32
_SAMPLES = 4  # of a plane, in each direction, that make one value of a thumbnail
_BLOCK_ROWS, _BLOCK_COLUMNS = 6, 8
_REACH_ROWS, _REACH_COLUMNS = 4, 8  # a quarter of the picture from frame to frame
_ALIKE = 0.12  # a difference, of at most 2, below which no cut was seen, and no search is needed
_NO_COLOR = 128
_FLAT = 2.0  # a standard deviation below this is a blank picture, where nothing can be found
_BLANK_STEP = 32.0  # mean difference at which going to or from a blank picture is a cut, no fade
# Sums the columns of each block, by a product: NumPy adds up runs of 8 ten times slower.
_BLOCKS_OF_COLUMNS = np.repeat(
    np.eye(_COLUMNS // _BLOCK_COLUMNS, dtype=np.float32), _BLOCK_COLUMNS, axis=0
)


def thumbnails(rows: Bytes, facts: VideoFacts) -> Thumbnails:
    """Return the small pictures that `cut_scores` compares, of `rows` [frames, frame_bytes]."""
    places = _places(facts.height, facts.width, facts.chroma_shape)
    sampled = samples_of(rows, facts).take(places, axis=1)
    # 16 samples of 12 bits just fit.
    sums = sampled.astype(np.uint16, copy=False).sum(axis=1, dtype=np.uint16).astype(np.float32)
    scale = _SAMPLES * _SAMPLES * 2 ** (facts.bit_depth - 8)
    pictures: Thumbnails = sums / np.float32(scale)
    return pictures.reshape(-1, 3, _ROWS, _COLUMNS)


def cut_scores(pictures: Thumbnails) -> list[float]:
    """Return how little each picture but the first has to do with the one before it.

    0 is the same scene, about 1 another one. Each score depends on its two pictures alone.
    """
    luma = pictures[:, 0].reshape(len(pictures), -1)
    deviations, means = luma.std(axis=1), luma.mean(axis=1)
    steps = np.abs(np.diff(luma, axis=0)).mean(axis=1)
    normal = _normalized(pictures, means, deviations)
    squares = np.square(np.diff(normal, axis=0)).sum(axis=1)
    in_place = squares.reshape(len(squares), -1).mean(axis=1) / 2
    scores = []
    for pair, step in enumerate(steps):
        low, high = sorted(deviations[pair : pair + 2])
        if low < _FLAT:
            scores.append(1.0 if step > _BLANK_STEP and high >= _FLAT else 0.0)
        elif in_place[pair] < _ALIKE:
            scores.append(float(in_place[pair]))
        else:
            scores.append(_score_of_moved(normal[pair], normal[pair + 1]))
    return scores


@lru_cache(maxsize=4)
def _places(height: int, width: int, chroma_shape: tuple[int, int]) -> NDArray[np.intp]:
    """Return where in a row [samples] those lie that make a value: [16, values of Y, U and V]."""
    planes, start = [], 0
    for num_rows, num_columns in ((height, width), chroma_shape, chroma_shape):
        rows = np.arange(_ROWS * _SAMPLES) * num_rows // (_ROWS * _SAMPLES)
        columns = np.arange(_COLUMNS * _SAMPLES) * num_columns // (_COLUMNS * _SAMPLES)
        places = start + rows[:, None] * num_columns + columns
        by_value = places.reshape(_ROWS, _SAMPLES, _COLUMNS, _SAMPLES).transpose(1, 3, 0, 2)
        planes.append(by_value.reshape(_SAMPLES * _SAMPLES, -1))
        start += num_rows * num_columns
    return np.concatenate(planes, axis=1)


def _normalized(
    pictures: Thumbnails, means: NDArray[np.float32], deviations: NDArray[np.float32]
) -> Thumbnails:
    origins = np.full((len(pictures), 3), _NO_COLOR, np.float32)
    origins[:, 0] = means
    scales = np.maximum(deviations, np.float32(_FLAT))  # those of blank pictures are not looked at
    normal: Thumbnails = np.divide(
        pictures - origins[:, :, None, None], scales[:, None, None, None]
    )
    return normal


def _score_of_moved(a: Picture, b: Picture) -> float:
    missing = _not_found(a, b)
    if missing < _ALIKE:
        return missing
    mirrored = [a[:, ::-1], a[:, :, ::-1], a[:, ::-1, ::-1]]
    by_chance = sum(_not_found(other, b) for other in mirrored) / len(mirrored)
    return missing / max(by_chance, _ALIKE)


def _not_found(a: Picture, b: Picture) -> float:
    """Return the difference of the blocks of `b` from the likest ones of `a` around them."""
    reach = ((0, 0), (_REACH_ROWS, _REACH_ROWS), (_REACH_COLUMNS, _REACH_COLUMNS))
    sideways = sliding_window_view(np.pad(a, reach, mode="edge"), _COLUMNS, axis=2)
    around = np.ascontiguousarray(sideways.transpose(2, 0, 1, 3))  # [moves, 3, rows, _COLUMNS]
    best = np.full((_ROWS // _BLOCK_ROWS, _COLUMNS // _BLOCK_COLUMNS), np.inf, np.float32)
    for row in range(2 * _REACH_ROWS + 1):
        difference = around[:, :, row : row + _ROWS] - b
        luma, *chroma = np.square(difference, out=difference).swapaxes(0, 1)
        by_column = sum(chroma, luma).reshape(-1, _COLUMNS) @ _BLOCKS_OF_COLUMNS
        blocks = by_column.reshape(len(around), -1, _BLOCK_ROWS, best.shape[1]).sum(axis=2)
        np.minimum(best, blocks.min(axis=0), out=best)
    return float(best.sum()) / (2 * _ROWS * _COLUMNS)
