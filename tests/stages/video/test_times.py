"""Times that a container or FFmpeg cannot count: written in coarser units, or refused."""

from fractions import Fraction

import pytest

from stages.base import UserError
from tests.stages.video.clips import double, length, shown, write_clip


@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_a_time_base_too_fine_to_halve_is_counted_in_what_all_times_share(tmp_path, suffix):
    clip = write_clip(tmp_path / "clip.mov", 5, time_base=Fraction(1, 2 * 10**9))
    output = tmp_path / f"out.{suffix}"
    double(clip, output, tmp_path)
    assert shown(output) == [Fraction(number, 50) for number in range(9)]
    if suffix == "mp4":
        assert length(output) == Fraction(1, 5)


@pytest.mark.parametrize(
    ("ticks", "pts"),
    [(2**31 - 1, None), (2 * 10**9, [0, 80000000, 160000001]), (2**30, [0, 7 * 10**7 + 1, 10**9])],
)
def test_times_too_fine_to_halve_are_refused_before_work_starts(tmp_path, ticks, pts):
    clip = write_clip(tmp_path / "clip.mov", 3, time_base=Fraction(1, ticks), pts=pts)
    with pytest.raises(UserError, match=f"units of 1/{ticks} s, are too fine to halve; copy it to"):
        double(clip, tmp_path / "out.mp4", tmp_path)
    assert not (tmp_path / "work").exists()


def test_an_avi_with_a_gap_that_it_cannot_fill_names_another_container(tmp_path):
    clip = write_clip(tmp_path / "clip.mp4", 4, pts=[0, 1, 512, 12800 * 600])
    with pytest.raises(UserError, match=r"out\.avi: avi cannot hold .* times .*; name .* \.mkv"):
        double(clip, tmp_path / "out.avi", tmp_path, codec="mpeg4", preset="none")
    assert not (tmp_path / "out.avi").exists()


def test_a_rate_that_an_encoder_cannot_count_is_named_in_its_refusal(tmp_path):
    clip = write_clip(tmp_path / "clip.mp4", 3, time_base=Fraction(1, 90000), pts=[0, 3600, 7201])
    words = r"mpeg4 refuses .* or 49\.99\d* frames/s in units of 1/180000 s; try"
    with pytest.raises(UserError, match=words) as caught:
        double(clip, tmp_path / "out.avi", tmp_path, codec="mpeg4", preset="none", crf=0)
    assert "\n" not in str(caught.value)
