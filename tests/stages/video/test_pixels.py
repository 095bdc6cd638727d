from fractions import Fraction

import av
import numpy as np
import pytest

from stages.base import Job
from stages.video.decode import FrameIndex
from stages.video.facts import facts_of
from stages.video.pixels import copy_to_row, planes_of_row, tagged_range_of, with_mean_alpha
from tests.stages.video.clips import double, opened, pictures, planes, read_window, write_clip


@pytest.fixture
def any_clip(tmp_path):
    return write_clip(tmp_path / "any.mp4", 2)


@pytest.fixture
def facts_of_frame(any_clip):
    """Facts as of a video that has frames like this one."""

    def of(frame):
        index = FrameIndex(np.arange(2), np.arange(1), Fraction(1, 25), 1)
        return facts_of(Job(input=any_clip, output="", work_dir=""), index, frame, 3)

    return of


@pytest.mark.parametrize(
    ("pix_fmt", "wanted"),
    [
        ("yuv411p", "yuv420p"),
        ("yuv422p", "yuv422p"),
        ("yuv444p", "yuv444p"),
        ("yuv440p", "yuv420p"),
        ("gray", "yuv420p"),
    ],
)
def test_other_chroma_is_resampled_and_luma_stays(tmp_path, pix_fmt, wanted):
    path = write_clip(tmp_path / "clip.mkv", 2, codec="ffv1", pix_fmt=pix_fmt)
    source, facts = opened(path)
    assert facts.pixel_format == wanted
    frames, _ = read_window(source, facts, 0)
    luma = np.frombuffer(planes(1, (64, 48), pix_fmt).planes[0], np.uint8).reshape(48, -1)[:, :64]
    assert np.array_equal(frames[1][: 48 * 64].reshape(48, 64), luma)
    source.close()


@pytest.mark.parametrize("color_range", [1, 2])
def test_half_planar_samples_of_ten_bits_are_only_put_in_place(facts_of_frame, color_range):
    frame = av.VideoFrame(64, 48, "p010le")
    frame.color_range = color_range
    luma, chroma = (np.frombuffer(plane, np.uint16) for plane in frame.planes)
    luma[:], chroma[::2], chroma[1::2] = 701 << 6, 140 << 6, 901 << 6
    facts = facts_of_frame(frame)
    row = np.empty(facts.frame_bytes, np.uint8)
    copy_to_row(frame, row, facts)
    assert (facts.pixel_format, facts.bit_depth) == ("yuv420p", 10)
    for plane, value in zip(planes_of_row(row, facts), (701, 140, 901), strict=True):
        assert set(plane.flat) == {value}


@pytest.mark.parametrize(("pix_fmt", "bits"), [("gray", 8), ("gray10le", 10), ("gray16le", 16)])
def test_gray_of_any_depth_keeps_its_levels(facts_of_frame, pix_fmt, bits):
    frame = av.VideoFrame(64, 48, pix_fmt)
    np.frombuffer(frame.planes[0], np.uint8 if bits == 8 else np.uint16)[:] = 61 << bits - 8
    facts = facts_of_frame(frame)
    row = np.empty(facts.frame_bytes, np.uint8)
    copy_to_row(frame, row, facts)
    assert facts.bit_depth == min(bits, 12)
    luma, *chroma = planes_of_row(row, facts)
    unit = 2 ** (facts.bit_depth - 8)
    assert np.abs(luma.astype(int) - 61 * unit).max() <= (bits > 12)  # the scaler dithers
    assert all(set(plane.flat) == {128 * unit} for plane in chroma)


@pytest.mark.parametrize(
    ("pix_fmt", "levels"), [("rgba", (81, 90, 240)), ("ya8", (255, 128, 128)), ("gbrap10le", None)]
)
def test_alpha_of_rgb_and_of_gray_is_kept_as_it_is(facts_of_frame, pix_fmt, levels):
    frame = av.VideoFrame(64, 48, pix_fmt)
    deep = pix_fmt.endswith("10le")
    samples = [np.frombuffer(plane, np.uint16 if deep else np.uint8) for plane in frame.planes]
    if pix_fmt == "rgba":
        samples[0].reshape(-1, 4)[:] = 255, 0, 0, 77
    elif pix_fmt == "ya8":
        samples[0].reshape(-1, 2)[:] = 255, 77
        frame.color_range = 2
    else:
        for plane, value in zip(samples, (0, 0, 1023, 309), strict=True):
            plane[:] = value
    facts = facts_of_frame(frame)
    row = np.empty(facts.frame_bytes, np.uint8)
    copy_to_row(frame, row, facts)
    *colors, alpha = planes_of_row(row, facts)
    assert set(alpha.flat) == {309 if deep else 77}
    for plane, level in zip(colors, levels or (4 * 81, 4 * 90, 4 * 240), strict=True):
        assert np.abs(plane.astype(int) - level).max() <= (4 if deep else 1)


@pytest.mark.parametrize("depth", [8, 10, 12])
def test_alpha_between_two_frames_is_their_rounded_mean(facts_of_frame, depth):
    pix_fmt = "yuva444p" if depth == 8 else f"yuva444p{depth}le"
    facts = facts_of_frame(av.VideoFrame(32, 32, pix_fmt))
    earlier, later = (np.zeros(facts.frame_bytes, np.uint8) for _ in range(2))
    middle = np.full(facts.color_bytes, 5, np.uint8)
    full = 2**depth - 1
    planes_of_row(earlier, facts)[3][:] = full
    planes_of_row(later, facts)[3][:16] = full - 3
    row = with_mean_alpha(middle, earlier, later, facts)
    assert np.array_equal(row[: facts.color_bytes], middle)
    alpha = planes_of_row(row, facts)[3]
    assert (set(alpha[:16].flat), set(alpha[16:].flat)) == ({full - 1}, {(full + 1) // 2})


def test_rgb_becomes_limited_yuv_by_the_matrix_of_its_size(tmp_path):
    def picture(number, size, pix_fmt):
        return av.VideoFrame.from_ndarray(np.full((48, 64, 3), (255, 0, 0), np.uint8), "rgb24")

    path = write_clip(tmp_path / "c.mov", 2, codec="png", pix_fmt="rgb24", picture=picture)
    source, facts = opened(path)
    shown = facts.presentation
    assert (facts.color_matrix, facts.color_range) == ("bt601", "limited")
    assert (shown.matrix, shown.tagged_range) == (6, "limited")
    frames, _ = read_window(source, facts, 0)
    assert abs(int(frames[0][0]) - 81) <= 1  # red, by BT.601: 81, 90, 240
    assert abs(int(frames[0][64 * 48]) - 90) <= 1
    assert abs(int(frames[0][-1]) - 240) <= 1
    source.close()


@pytest.mark.parametrize(("height", "assumed"), [(48, "bt601"), (720, "bt709")])
def test_untagged_video_is_taken_as_players_take_it_and_stays_untagged(tmp_path, height, assumed):
    path = write_clip(tmp_path / "clip.mp4", 2, size=(64, height))
    source, facts = opened(path)
    assert (facts.color_matrix, facts.color_range) == (assumed, "limited")
    assert (facts.presentation.matrix, facts.presentation.tagged_range) == (2, None)
    source.close()


def test_tagged_colours_are_kept(tmp_path):
    def setup(container, stream):
        stream.colorspace, stream.color_primaries, stream.color_trc = 9, 9, 14
        stream.color_range = 2

    source, facts = opened(write_clip(tmp_path / "clip.mp4", 2, setup=setup))
    shown = facts.presentation
    assert (facts.color_matrix, facts.color_range) == ("bt2020", "full")
    assert (shown.matrix, shown.primaries, shown.transfer, shown.tagged_range) == (9, 9, 14, "full")
    source.close()


def test_gray_without_a_tag_is_written_as_full_range_and_untouched(tmp_path):
    clip = write_clip(tmp_path / "clip.mkv", 3, codec="ffv1", pix_fmt="gray")
    _, facts, _ = double(clip, tmp_path / "out.mkv", tmp_path, codec="ffv1", preset="none")
    assert facts.color_range == "full"
    source, written = opened(tmp_path / "out.mkv")
    assert written.presentation.tagged_range == "full"
    source.close()
    (before, *_), (after, *_) = pictures(clip), pictures(tmp_path / "out.mkv")
    assert np.array_equal(before, after[:48])


@pytest.mark.parametrize(
    ("pix_fmt", "codec", "tag", "wanted"),
    [
        ("gray", "png", 0, "full"),
        ("gray10le", "ffv1", 0, "full"),
        ("ya8", "png", 0, "full"),
        ("gray", "ffv1", 1, "limited"),
        ("gray", "h264", 0, None),
        ("gray", "h264", 2, "full"),
        ("gray", "hevc", 0, None),
        ("yuva420p", "ffv1", 0, None),
    ],
)
def test_only_gray_without_a_tag_is_taken_as_full_range(pix_fmt, codec, tag, wanted):
    frame = av.VideoFrame(32, 32, pix_fmt)
    frame.color_range = tag
    assert tagged_range_of(frame, codec) == wanted
