"""Files that are cut short or damaged: what can be read is, and the rest is said."""

from fractions import Fraction

import av
import numpy as np
import pytest

from stages.base import UserError
from stages.video.decode import BrokenFrameError, demux
from tests.stages.video.clips import opened, pictures, read_window, write_clip
from tests.stages.video.damaged import (
    FASTSTART,
    KINDS,
    cut,
    make_noise,
    outcomes,
    overwrite,
    write_long,
)


@pytest.mark.parametrize("kind", KINDS)
def test_a_file_that_is_cut_short_is_read_to_its_end_and_it_is_said(tmp_path, kind):
    name, options = KINDS[kind]
    write_long(tmp_path / name, **options)
    found, source, facts = outcomes(cut(tmp_path / name))
    assert all(not isinstance(outcome, str) for outcome in found)
    assert 10 < facts.num_frames < 50
    assert source.broken.startswith(f"{tmp_path / name}: cut short, ends after ")
    assert source.broken.endswith(" s; what is there is interpolated")
    assert "\n" not in source.broken


@pytest.mark.parametrize("kind", ["Matroska", "MP4, index first"])
def test_how_much_is_missing_is_said_where_the_file_knows_it(tmp_path, kind):
    name, options = KINDS[kind]
    write_long(tmp_path / name, **options)
    found, source, facts = outcomes(cut(tmp_path / name))
    have = (found[-1].pts[-1] - found[0].pts[0] + facts.presentation.last_duration) * float(
        Fraction(*facts.presentation.time_base)
    )
    assert f"ends after {have:.1f} s of 2.4 s;" in source.broken


@pytest.mark.parametrize("kind", KINDS)
def test_a_whole_file_is_not_called_broken(tmp_path, kind):
    name, options = KINDS[kind]
    sound = kind != "WebM"
    found, source, facts = outcomes(write_long(tmp_path / name, sound=sound, **options))
    assert (source.broken, source.warnings, facts.num_frames) == ("", [], 60)
    assert all(not isinstance(outcome, str) for outcome in found)


@pytest.mark.parametrize("share", [0.2, 0.35, 0.5, 0.7, 0.9, 0.97])
def test_an_mp4_that_is_cut_anywhere_has_only_whole_frames(tmp_path, share):
    write_long(tmp_path / "clip.mp4", sound=True, **FASTSTART)
    whole = pictures(tmp_path / "clip.mp4")
    found, source, facts = outcomes(cut(tmp_path / "clip.mp4", share))
    assert "cut short" in source.broken
    assert all(not isinstance(outcome, str) for outcome in found)
    source, facts = opened(tmp_path / "clip.mp4", pairs=1)
    for key in range(facts.num_windows):
        frames, meta = read_window(source, facts, key)
        assert np.array_equal(frames[0], whole[meta.pts[0] // 512].reshape(-1))
    source.close()


@pytest.mark.parametrize("threads", [2, 4])
@pytest.mark.parametrize("kind", KINDS)
def test_of_a_cut_file_several_threads_read_what_one_does(tmp_path, kind, threads):
    name, options = KINDS[kind]
    write_long(tmp_path / name, **options)
    path = cut(tmp_path / name)
    (expected, alone, facts), (found, beside, others) = (
        outcomes(path, threads=number) for number in (1, threads)
    )
    assert found == expected
    assert (beside.broken, others.num_frames) == (alone.broken, facts.num_frames)


@pytest.mark.parametrize("threads", [2, 4])
@pytest.mark.parametrize("number", [1, 31, 57, 59])
def test_of_a_damaged_file_several_threads_read_what_one_does(tmp_path, number, threads):
    path = tmp_path / "clip.mkv"
    write_clip(path, 60, codec="ffv1", options={"g": "1", "slicecrc": "1"}, size=(128, 96))
    overwrite(path, number, length=400)
    (expected, *_), (found, *_) = (outcomes(path, threads=count) for count in (1, threads))
    assert found == expected
    failed = [key for key, outcome in enumerate(found) if isinstance(outcome, str)]
    assert failed == [number // 5]


def test_an_mp4_whose_index_is_lost_is_refused(tmp_path):
    write_long(tmp_path / "clip.mp4")
    with pytest.raises(UserError, match=r"clip\.mp4: not a video .*; its index is missing: was"):
        opened(cut(tmp_path / "clip.mp4"))


def test_damage_fails_its_own_window_and_the_others_are_read(tmp_path):
    path = tmp_path / "clip.mkv"
    write_clip(path, 90, codec="ffv1", options={"g": "1", "slicecrc": "1"}, size=(128, 96))
    overwrite(path, 60, length=400)
    found, source, _ = outcomes(path, pairs=8)
    assert [key for key, outcome in enumerate(found) if isinstance(outcome, str)] == [7]
    place = f"{path}: frame 60 of 90, at 2.40 s, cannot be decoded: "
    assert found[7].startswith(place)
    assert "\n" not in found[7]
    assert source.broken == "", "nobody knows before it is decoded"


@pytest.mark.parametrize("name", ["clip.mp4", "clip.mkv"])
def test_pictures_that_the_decoder_makes_up_are_not_taken_for_real(tmp_path, name):
    write_long(tmp_path / name)
    overwrite(tmp_path / name, 32, length=300)
    found, _, _ = outcomes(tmp_path / name)
    failed = [key for key, outcome in enumerate(found) if isinstance(outcome, str)]
    assert 1 <= len(failed) <= 2, "the frame may be the shared one"
    assert all("of 60, at 1." in found[key] and "cannot be decoded" in found[key] for key in failed)


def test_a_lost_packet_of_a_transport_stream_fails_its_frame_and_is_said(tmp_path):
    path = tmp_path / "clip.ts"
    write_long(path)
    with av.open(str(path)) as container:
        places = [packet.pos for packet in container.demux(video=0) if packet.size]
    content = path.read_bytes()
    path.write_bytes(content[: places[32] + 188] + content[places[32] + 376 :])
    found, source, _ = outcomes(path)
    assert source.warnings == [f"{path}: read with errors (1 damaged packet(s))"]
    assert [outcome for outcome in found if isinstance(outcome, str)] == [
        f"{path}: frame 32 of 60, at 1.28 s, cannot be decoded: parts of it are lost"
    ]


def test_frames_that_a_demuxer_leaves_out_are_said(tmp_path):
    path = tmp_path / "clip.mkv"
    write_long(path, 100, sound=True, options={"g": "25", "qp": "10"})
    make_noise(path, 6000)
    _, source, facts = outcomes(path)
    assert facts.num_frames < 100
    assert f"{path}: damaged, frames are missing after " in source.broken
    assert source.broken.endswith("; what is there is interpolated")


def test_an_index_that_names_more_frames_than_there_are_is_said(tmp_path):
    path = tmp_path / "clip.avi"
    write_long(path, 100, sound=True, **KINDS["AVI"][1])
    make_noise(path, 4000)
    _, source, facts = outcomes(path)
    missing = 100 - facts.num_frames
    assert missing > 0
    assert source.broken == (
        f"{path}: damaged, {missing} frame(s) are missing; what is there is interpolated"
    )


def test_a_video_of_which_no_frame_can_be_decoded_is_refused(tmp_path):
    path = tmp_path / "clip.mkv"
    write_clip(path, 5, codec="ffv1", options={"g": "1", "slicecrc": "1"})
    for number in range(5):
        overwrite(path, number)
    with pytest.raises(UserError, match=r"clip\.mkv: none of its frames can be decoded"):
        opened(path)


def test_facts_come_from_the_first_frame_that_is_whole(tmp_path):
    path = tmp_path / "clip.mkv"
    write_clip(path, 20, codec="ffv1", options={"g": "1", "slicecrc": "1"})
    overwrite(path, 0)
    source, facts = opened(path, pairs=3)
    assert (facts.width, facts.height) == (64, 48)
    with pytest.raises(BrokenFrameError, match=r"frame 0 of 20, at 0\.00 s"):
        read_window(source, facts, 0)
    assert read_window(source, facts, 1)[1].num_pairs == 3
    source.close()


class Torn:
    """A file of five packets: reading raises before the third, and for ever behind the last."""

    def __init__(self):
        self.packets, self.num_raised = iter([0, 1, None, 2, 3, 4]), 0

    def demux(self, *streams):
        while (packet := next(self.packets, None)) is not None:
            yield packet
        self.num_raised += 1
        raise av.InvalidDataError(1, "Invalid data", "a.mkv")


def test_reading_goes_on_behind_an_error_but_not_for_ever():
    errors, file = [], Torn()
    assert list(demux(file, [None], errors)) == [0, 1, 2, 3, 4]
    assert errors == ["Invalid data"] * file.num_raised
    assert file.num_raised < 12


def test_what_is_wrong_with_a_file_is_said_each_time(tmp_path):
    write_long(tmp_path / "clip.mkv")
    cut(tmp_path / "clip.mkv")
    said = [outcomes(tmp_path / "clip.mkv")[1].broken for _ in range(2)]
    assert said[0] == said[1] != ""
