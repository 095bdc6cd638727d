"""Which files can be written: real containers, and every one of them gives its frames back."""

import os
from fractions import Fraction

import pytest

from stages.base import UserError
from tests.stages.video.clips import double, shown, write_clip

OWN_FILES = ["mpd", "m3u8", "ism", "png", "jpg"]
BARE = ["h264", "264", "hevc", "obu", "y4m", "ivf", "m2v", "yuv", "gif", ""]


@pytest.mark.parametrize("suffix", OWN_FILES + BARE)
def test_what_is_no_container_is_refused_and_leaves_nothing(tmp_path, monkeypatch, suffix):
    clip = write_clip(tmp_path / "clip.mp4", 3)
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    with pytest.raises(UserError, match=r"no video container .*; use one of \.mp4 .* \.mkv"):
        double(clip, tmp_path / f"out.{suffix}", tmp_path)
    assert os.listdir(here) == []
    assert sorted(os.listdir(tmp_path)) == ["clip.mp4", "here"]


H264, MPEG4, MPEG2 = ("libx264", "veryfast"), ("mpeg4", "none"), ("mpeg2video", "none")
VP9 = ("libvpx-vp9", "none")
CODECS = {
    **dict.fromkeys(["mp4", "m4v", "mov", "3gp", "3g2", "mkv", "flv", "f4v"], H264),
    **dict.fromkeys(["ts", "m2ts", "MTS"], H264),
    **dict.fromkeys(["avi", "nut", "wmv", "asf"], MPEG4),
    **dict.fromkeys(["mpg", "mpeg"], MPEG2),
    "webm": VP9,
}


@pytest.mark.parametrize("suffix", CODECS)
def test_every_container_gives_all_frames_back_in_time(tmp_path, monkeypatch, suffix):
    clip = write_clip(tmp_path / "clip.mp4", 6)
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    codec, preset = CODECS[suffix]
    output = tmp_path / f"out.{suffix}"
    double(clip, output, tmp_path, codec=codec, preset=preset)
    times = shown(output)
    assert [time - times[0] for time in times] == [Fraction(number, 50) for number in range(11)]
    assert os.listdir(here) == []


def test_what_mkv_itself_cannot_hold_is_not_sent_to_mkv(tmp_path):
    clip = write_clip(tmp_path / "clip.mp4", 3)
    with pytest.raises(UserError, match=r"matroska cannot hold wrapped_avframe; use another codec"):
        double(clip, tmp_path / "out.mkv", tmp_path, codec="wrapped_avframe", preset="none")
