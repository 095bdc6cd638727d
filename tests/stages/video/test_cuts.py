from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from stages.video.cuts import cut_score, thumbnail
from tests.stages.video.clips import opened, pictures, read_window, write_clip

DEMO = Path(__file__).parents[3] / "configs" / "demo" / "clip.mp4"
BETWEEN = Path(__file__).parents[2] / "data" / "demo" / "between.mp4"
THRESHOLD = 0.5  # the default


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
