from itertools import pairwise, product
from pathlib import Path

import numpy as np
import pytest

from stages.base import Job
from stages.video.cuts import cut_scores, thumbnails
from stages.window import VideoFacts
from tests.stages.video.clips import opened, pictures, read_window, write_clip

DEMO = Path(__file__).parents[3] / "configs" / "demo" / "clip.mp4"
BETWEEN = Path(__file__).parents[2] / "data" / "demo" / "between.mp4"
THRESHOLD = 0.5  # the default


def thumbnail(planes, depth=8):
    """The small picture of planes Y, U, V and perhaps A."""
    chroma = {(135, 240): "yuv420p", (270, 240): "yuv422p", (270, 480): "yuv444p"}
    facts = VideoFacts(
        job=Job(input="", output="", work_dir=""),
        width=480,
        height=270,
        num_frames=2,
        pairs_per_item=1,
        pixel_format=chroma[planes[1].shape],
        bit_depth=depth,
        has_alpha=len(planes) > 3,
        color_matrix="bt601",
        color_range="limited",
    )
    row = np.concatenate([plane.ravel() for plane in planes]).view(np.uint8)
    return thumbnails(row[np.newaxis], facts)[0]


def cut_score(earlier, later):
    (score,) = cut_scores(np.stack([earlier, later]))
    return score


def panorama(seed):
    """A wide picture with detail of all sizes."""
    noise, picture = np.random.default_rng(seed), np.zeros((540, 1440))
    for size in (4, 12, 36, 108):
        cells = noise.random((540 // size + 2, 1440 // size + 2))
        y, x = np.mgrid[0:540, 0:1440] / size
        row, column = y.astype(int), x.astype(int)
        u, v = x - column, y - row
        upper = cells[row, column] * (1 - u) + cells[row, column + 1] * u
        lower = cells[row + 1, column] * (1 - u) + cells[row + 1, column + 1] * u
        picture += size**0.5 * (upper * (1 - v) + lower * v)
    return (picture / picture.max() * 200 + 20).astype(np.uint8)


def view(picture, x=0, zoom=1.0, gain=1.0, lift=0.0):
    """A thumbnail of 480x270 of it, without colour."""
    rows = ((np.arange(270) - 135) / zoom + 270).astype(int)
    columns = ((np.arange(480) - 240) / zoom + 480 + x).astype(int)
    luma = np.clip(picture[rows][:, columns] * gain + lift, 0, 255).astype(np.uint8)
    gray = np.full((135, 240), 128, np.uint8)
    return thumbnail([luma, gray, gray])


SEEDS = range(4)
PICTURES = [panorama(seed) for seed in SEEDS]


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(
    "change",
    [{"x": 20}, {"x": 70}, {"x": 110}, {"zoom": 1.1}, {"zoom": 1.25}, {"gain": 0.6}, {"lift": 30}],
)
def test_pans_zooms_and_flicker_are_no_cuts(seed, change):
    picture = PICTURES[seed]
    assert cut_score(view(picture), view(picture, **change)) < THRESHOLD - 0.05


@pytest.mark.parametrize("depth", [10, 12])
def test_a_thumbnail_of_more_bits_is_that_of_eight(depth):
    planes = [PICTURES[0][:270, :480], *np.full((2, 135, 240), 255, np.uint8)]
    deep = [plane.astype(np.uint16) << depth - 8 for plane in planes]
    alpha = np.zeros((270, 480), np.uint16)
    assert np.array_equal(thumbnail([*deep, alpha], depth), thumbnail(planes))


@pytest.mark.parametrize("shape", [(135, 240), (270, 240), (270, 480)])
def test_a_value_of_a_thumbnail_is_the_mean_of_16_samples_spread_evenly(shape):
    noise = np.random.default_rng(0)
    planes = [noise.integers(0, 256, size, np.uint8) for size in ((270, 480), shape, shape)]
    for plane, values in zip(planes, thumbnail(planes), strict=True):
        rows, columns = (
            np.arange(n) * size // n for n, size in zip((72, 128), plane.shape, strict=True)
        )
        spread = plane[rows][:, columns].astype(float)
        assert np.array_equal(values, spread.reshape(18, 4, 32, 4).mean(axis=(1, 3)))


def not_found(a, b):
    """What no block of 6x8 of `b` finds in `a` up to 4 rows and 8 columns away, one by one."""
    around, best = np.pad(a, ((0, 0), (4, 4), (8, 8)), mode="edge"), []
    for row, column in product(range(0, 18, 6), range(0, 32, 8)):
        block = b[:, row : row + 6, column : column + 8]
        moved = [
            around[:, y : y + 6, x : x + 8]
            for y in range(row, row + 9)
            for x in range(column, column + 17)
        ]
        best.append(min(np.square(block - other).sum() for other in moved))
    return sum(best) / (2 * 18 * 32)


def test_a_score_is_what_is_not_found_beside_what_is_not_found_in_mirror_images():
    noise = np.random.default_rng(0)
    pictures = noise.normal(128, 40, (2, 3, 18, 32)).astype(np.float32)
    origins = [[[[mean]], [[128]], [[128]]] for mean in pictures[:, 0].mean(axis=(1, 2))]
    a, b = (pictures - origins) / pictures[:, 0].std(axis=(1, 2))[:, None, None, None]
    by_chance = [not_found(one, b) for one in (a[:, ::-1], a[:, :, ::-1], a[:, ::-1, ::-1])]
    expected = not_found(a, b) / (sum(by_chance) / 3)
    assert cut_score(*pictures) == pytest.approx(expected, rel=1e-4)


def test_a_score_depends_on_its_two_pictures_alone():
    blank, dark = view(PICTURES[0], gain=0), view(PICTURES[0], gain=0.05)
    views = [view(PICTURES[0], x=x) for x in (0, 20, 21, 110)]
    pictures = [*views, blank, dark, blank, view(PICTURES[1]), view(PICTURES[2], zoom=1.1)]
    scores = cut_scores(np.stack(pictures))
    assert scores == [cut_score(a, b) for a, b in pairwise(pictures)]
    assert {0.0, 1.0} < {*scores}  # blank pictures have no effect on those beside them


def test_fades_are_no_cuts():
    levels = [view(PICTURES[0], gain=step / 12) for step in range(13)]
    assert all(cut_score(a, b) < THRESHOLD for a, b in pairwise(levels))


@pytest.mark.parametrize("seed", SEEDS)
def test_another_picture_of_the_same_kind_is_a_cut(seed):
    others = [picture for number, picture in enumerate(PICTURES) if number != seed]
    assert all(cut_score(view(PICTURES[seed]), view(other)) > THRESHOLD for other in others)


def test_a_picture_out_of_the_dark_is_a_cut():
    assert cut_score(view(PICTURES[0], gain=0), view(PICTURES[0])) > THRESHOLD


@pytest.mark.parametrize("pairs", [1, 4, 16])
def test_the_demo_clip_has_one_cut_whatever_the_window(pairs):
    source, facts = opened(DEMO, pairs=pairs)
    metas = [read_window(source, facts, key)[1] for key in range(facts.num_windows)]
    cuts = [cut for meta in metas for cut in meta.cuts]
    assert [place for place, cut in enumerate(cuts) if cut] == [32]
    source.close()


def test_a_threshold_of_0_looks_for_no_cuts():
    source, facts = opened(DEMO, pairs=59, cut_threshold=0)
    assert read_window(source, facts, 0)[1].cuts == (False,) * 59
    source.close()


def test_the_demo_clip_comes_with_the_truth_between_its_frames():
    clip, between = pictures(DEMO), pictures(BETWEEN)
    assert (len(clip), len(between)) == (60, 59)
    for place in (3, 20, 50):
        blend = (clip[place].astype(float) + clip[place + 1]) / 2
        assert (
            np.square(blend - between[place]).mean()
            < np.square(clip[place].astype(float) - between[place]).mean()
        )


def test_still_pictures_have_no_cuts(tmp_path):
    path = write_clip(tmp_path / "clip.mp4", 12)
    source, facts = opened(path, pairs=11)
    assert not any(read_window(source, facts, 0)[1].cuts)
    source.close()
