"""Whatever is in a video file: frames, the damage that is said, or a refusal in one line."""

import dataclasses
import shutil

import pytest

from stages.base import UserError
from stages.video.encode import written_rate
from tests.hostile import cases
from tests.hostile.corpus_files import CORPUS
from tests.stages.video.clips import opened


@pytest.mark.slow
@cases.seeds(short=120)
def test_every_video_is_read_or_refused(tmp_path, first, number):
    assert cases.defects_of("videos", tmp_path, first, number) == []


@pytest.mark.parametrize("name", ["clip.mkv", "clip.ffconcat"])
def test_a_script_that_names_other_videos_is_refused(name, tmp_path):
    """It was read, and other files of the host with it."""
    shutil.copy(CORPUS / "videos/whole.mkv", tmp_path / "whole.mkv")
    shutil.copy(CORPUS / "videos/names_another.mkv", tmp_path / name)
    with pytest.raises(UserError, match="not a video that can be read"):
        opened(tmp_path / name)


def test_a_playlist_that_names_other_videos_is_refused(tmp_path):
    shutil.copy(CORPUS / "videos/whole.mp4", tmp_path / "whole.mp4")
    lines = ["#EXTM3U", "#EXT-X-TARGETDURATION:1", "#EXTINF:0.2,", "whole.mp4", "#EXT-X-ENDLIST"]
    (tmp_path / "list.m3u8").write_text("\n".join(lines))
    with pytest.raises(UserError, match="not a video that can be read"):
        opened(tmp_path / "list.m3u8")


@pytest.mark.parametrize("name", ["whole.mkv", "whole.mp4", "whole.avi"])
def test_what_is_whole_is_read(name):
    source, facts = opened(CORPUS / "videos" / name)
    source.close()
    assert (facts.num_frames, source.broken) == (5, "")


def test_a_rate_that_no_file_can_say_is_written_as_one_that_it_can():
    """Of an AVI whose header has 2 ** 31 - 1 frames a second: twice that is no 32-bit number."""
    source, facts = opened(CORPUS / "videos/whole.avi")
    source.close()
    shown = dataclasses.replace(facts.presentation, frame_rate=(2**31 - 1, 1))
    assert written_rate(dataclasses.replace(facts, presentation=shown)) == 1_000_000
    assert written_rate(facts) == 50
