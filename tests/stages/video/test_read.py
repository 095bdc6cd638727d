import random
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import av
import numpy as np
import pytest

from stages.base import Job, UserError
from stages.video import ReadVideo
from tests.stages.video.clips import opened, pictures, planes, read_window, write_clip

OPEN_GOP = {"x264-params": "keyint=12:min-keyint=12:bframes=3:open-gop=1:scenecut=0"}
LONG_GOP = {"x264-params": "keyint=500:bframes=3:scenecut=0"}
HEVC_OPEN_GOP = {"preset": "ultrafast", "x265-params": "log-level=0:keyint=8:open-gop=1:bframes=3"}
VP8 = {"auto-alt-ref": "1", "lag-in-frames": "10", "cpu-used": "8", "deadline": "good"}
FILES = {
    "a long GOP with B-frames": ("clip.mp4", {"options": LONG_GOP}),
    "open GOPs": ("clip.mp4", {"options": OPEN_GOP}),
    "open GOPs in Matroska": ("clip.mkv", {"options": OPEN_GOP}),
    "open GOPs in a transport stream": ("clip.ts", {"options": OPEN_GOP}),
    "HEVC with open GOPs": ("clip.mp4", {"codec": "libx265", "options": HEVC_OPEN_GOP}),
    "AVI with B-frames and no pts": ("clip.avi", {"codec": "mpeg4", "options": {"bf": "2"}}),
    "MPEG-2 with open GOPs": ("clip.mpg", {"codec": "mpeg2video", "options": {"bf": "2"}}),
    "frames in packets of their own": ("clip.mov", {"codec": "mjpeg", "pix_fmt": "yuvj420p"}),
    "VP9": ("clip.webm", {"codec": "libvpx-vp9", "options": {"cpu-used": "8"}}),
    "a bare stream without any times": ("clip.h264", {"options": OPEN_GOP}),
}


@pytest.mark.parametrize("kind", FILES)
def test_any_order_of_windows_gives_the_bytes_of_reading_in_order(tmp_path, kind):
    name, options = FILES[kind]
    path = write_clip(tmp_path / name, 50, time_base=Fraction(1, 25), **options)
    expected = pictures(path)
    source, facts = opened(path, pairs=3)
    in_order = [read_window(source, facts, key) for key in range(facts.num_windows)]
    assert facts.num_frames == len(expected) == 50
    assert all(
        np.array_equal(row, picture.reshape(-1))
        for row, picture in zip(rows_of(in_order), expected, strict=True)
    )
    keys = random.Random(3).sample(source.keys(), facts.num_windows)
    for key in [*keys, 2, 2, 3, 0]:
        frames, meta = read_window(source, facts, key)
        assert np.array_equal(frames, in_order[key][0]), key
        assert meta == in_order[key][1]
    source.close()


def rows_of(windows):
    """All real frames of windows in order, the shared ones once."""
    rows = [frames[: meta.num_pairs] for frames, meta in windows]
    frames, meta = windows[-1]
    return [row for some in rows for row in some] + [frames[meta.num_pairs]]


@pytest.mark.parametrize("n", [2, 3, 4, 7, 8])
def test_neighbouring_windows_share_a_frame_and_the_last_repeats_its_own(tmp_path, n):
    source, facts = opened(write_clip(tmp_path / "clip.mp4", n), pairs=3)
    windows = [read_window(source, facts, key) for key in range(facts.num_windows)]
    assert len(rows_of(windows)) == n
    assert sum(meta.num_pairs for _, meta in windows) == n - 1 == source.num_units()
    for (one, _), (other, _) in pairwise(windows):
        assert np.array_equal(one[-1], other[0])
    frames, meta = windows[-1]
    assert all(np.array_equal(row, frames[meta.num_pairs]) for row in frames[meta.num_pairs :])
    source.close()


def test_times_are_those_of_the_file_also_where_they_are_uneven(tmp_path):
    pts = [640, 700, 1900, 1901, 5000, 5120, 9000, 70000]
    source, facts = opened(write_clip(tmp_path / "clip.mp4", 8, pts=pts), pairs=3)
    metas = [read_window(source, facts, key)[1] for key in range(facts.num_windows)]
    assert [meta.pts for meta in metas] == [tuple(pts[:4]), tuple(pts[3:7]), tuple(pts[6:])]
    assert facts.presentation.first_pts == 640
    source.close()


def test_frames_that_an_edit_list_leaves_out_are_not_there(tmp_path):
    pts = [512 * number for number in range(-7, 43)]
    path = write_clip(tmp_path / "clip.mp4", 50, pts=pts, options=LONG_GOP)
    expected = pictures(path)
    source, facts = opened(path, pairs=3)
    assert facts.num_frames == len(expected) == 43
    for key in (13, 2, 0, 13):
        frames, meta = read_window(source, facts, key)
        assert np.array_equal(frames[1], expected[3 * key + 1].reshape(-1))
        assert meta.pts == tuple(512 * number for number in range(3 * key, 3 * key + 4))
    source.close()


def test_frames_hidden_in_vp8_are_not_counted(tmp_path):
    path = write_clip(tmp_path / "clip.webm", 60, codec="libvpx", options=VP8, size=(96, 64))
    source, facts = opened(path)
    assert facts.num_frames == 60
    last = source.keys()[-1]
    expected, first = read_window(source, facts, last), read_window(source, facts, 0)
    assert np.array_equal(expected[0], read_window(source, facts, last)[0])
    assert np.array_equal(first[0], read_window(source, facts, 0)[0])
    source.close()


def test_the_size_that_all_stages_agreed_on_overrides_pairs(tmp_path):
    path = write_clip(tmp_path / "clip.mp4", 9)
    source = ReadVideo(pairs=4)
    facts = source.open(Job(input=path, output="", work_dir="", size=2))
    assert (facts.pairs_per_item, facts.num_windows, source.item_size) == (2, 4, 2)
    source.close()


@pytest.mark.parametrize("size", [(65, 107), (64, 33), (32, 32)])
def test_luma_is_untouched_for_any_size(tmp_path, size):
    odd = size[0] % 2 or size[1] % 2
    pix_fmt = "yuv444p" if odd else "yuv420p"
    path = write_clip(tmp_path / "clip.mkv", 3, size=size, pix_fmt=pix_fmt, codec="ffv1")
    source, facts = opened(path)
    assert facts.pixel_format == pix_fmt
    frames, _ = read_window(source, facts, 0)
    assert np.array_equal(frames[2], pictures(path)[2].reshape(-1))
    source.close()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("none.mp4", None, "no such file"),
        ("empty.mp4", b"", "the file is empty"),
        ("text.mp4", b"This is no video.\n" * 99, "not a video that can be read"),
    ],
)
def test_what_is_no_video_is_the_users_mistake(tmp_path, name, content, message):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=f"{name}: .*{message}") as caught:
        opened(tmp_path / name)
    assert "\n" not in str(caught.value)


def test_a_folder_is_no_video(tmp_path):
    with pytest.raises(UserError, match="a folder; give the path of a video file"):
        opened(tmp_path)


def test_sound_alone_is_no_video(tmp_path):
    with av.open(str(tmp_path / "sound.wav"), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=8000)
        stream.layout = "mono"
        samples = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), "s16", "mono")
        samples.sample_rate = 8000
        container.mux(stream.encode(samples))
    with pytest.raises(UserError, match=r"sound\.wav: no video stream in it"):
        opened(tmp_path / "sound.wav")


def test_one_frame_has_nothing_between(tmp_path):
    with pytest.raises(UserError, match=r"1 frame\(s\); a frame between two needs two at least"):
        opened(write_clip(tmp_path / "clip.mp4", 1))


def test_a_window_has_at_least_one_pair():
    with pytest.raises(UserError, match="pairs = 0: a window has at least 1 frame pair"):
        ReadVideo(pairs=0)


def test_a_change_of_size_on_the_way_is_named_with_its_frame(tmp_path):
    one = write_clip(tmp_path / "a.h264", 60)
    other = write_clip(tmp_path / "b.h264", 60, size=(96, 64))
    both = tmp_path / "both.h264"
    both.write_bytes(Path(one).read_bytes() + Path(other).read_bytes())
    source, facts = opened(both, pairs=30)
    with pytest.raises(UserError, match="frame 60 is 96x64, those before it 64x48; convert"):
        read_all(source, facts)
    source.close()


def read_all(source, facts):
    for key in range(facts.num_windows):
        read_window(source, facts, key)


def resident_bytes():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


@pytest.mark.slow
def test_memory_does_not_grow_with_the_number_of_frames(tmp_path):
    few = [planes(number, (32, 32)) for number in range(10)]
    path = write_clip(
        tmp_path / "long.mp4",
        10000,
        size=(32, 32),
        picture=lambda number, *_: few[number % 10],
        options={"preset": "ultrafast"},
    )
    source, facts = opened(path, pairs=16)
    frames = np.empty((17, facts.frame_bytes), np.uint8)
    for key in range(6):  # 100 frames
        source.read(key, {"frames": frames})
    after_few = resident_bytes()
    for key in range(6, facts.num_windows):
        source.read(key, {"frames": frames})
    assert resident_bytes() - after_few < 2**20
    source.close()
