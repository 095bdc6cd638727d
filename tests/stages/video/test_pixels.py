import av
import numpy as np
import pytest

from tests.stages.video.clips import opened, planes, read_window, write_clip


@pytest.mark.parametrize(
    ("pix_fmt", "wanted"),
    [("yuv422p", "yuv420p"), ("yuv444p", "yuv444p"), ("yuv440p", "yuv420p"), ("gray", "yuv420p")],
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
def test_ten_bits_become_eight_of_the_same_range_and_matrix(tmp_path, color_range):
    def picture(number, size, pix_fmt):
        frame = av.VideoFrame(*size, pix_fmt)
        for plane, value in zip(frame.planes, (4 * 61, 4 * 140, 4 * 90), strict=True):
            np.frombuffer(plane, np.uint16)[:] = value
        frame.color_range = color_range
        return frame

    path = write_clip(tmp_path / "c.mkv", 2, codec="ffv1", pix_fmt="yuv420p10le", picture=picture)
    source, facts = opened(path)
    frames, _ = read_window(source, facts, 0)
    for plane, value in zip(np.split(frames[0], [64 * 48, 64 * 60]), (61, 140, 90), strict=True):
        assert set(plane) == {value}
    source.close()


@pytest.mark.parametrize(("pix_fmt", "bits"), [("gray", 8), ("gray10le", 10), ("gray16le", 16)])
def test_gray_of_any_depth_keeps_its_levels(tmp_path, pix_fmt, bits):
    def picture(number, size, pix_fmt):
        frame = av.VideoFrame(*size, pix_fmt)
        np.frombuffer(frame.planes[0], np.uint8 if bits == 8 else np.uint16)[:] = 61 << bits - 8
        return frame

    path = write_clip(tmp_path / "c.mkv", 2, codec="ffv1", pix_fmt=pix_fmt, picture=picture)
    source, facts = opened(path)
    frames, _ = read_window(source, facts, 0)
    assert np.abs(frames[0][: 64 * 48].astype(int) - 61).max() <= (bits > 8)  # the scaler dithers
    assert set(frames[0][64 * 48 :]) == {128}
    source.close()


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
