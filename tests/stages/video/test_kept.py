"""What is more than 8-bit colour: depth, chroma, alpha and HDR, from file to file."""

import av
import numpy as np
import pytest

from stages.base import UserError
from tests.stages.video.clips import (
    blend,
    deep_planes,
    double,
    opened,
    pictures,
    read_window,
    shown,
    write_clip,
)


def rows(path):
    """All frames of a file, as a source keeps them."""
    source, facts = opened(path, pairs=1)
    frames = [read_window(source, facts, key)[0][0] for key in range(facts.num_pairs)]
    frames.append(read_window(source, facts, facts.num_pairs - 1)[0][1])
    source.close()
    return np.stack(frames), facts


LOSSLESS = [
    ("yuv420p10le", "libx264", "out.mp4"),
    ("yuv422p10le", "libx264", "out.mp4"),
    ("yuv444p10le", "libx264", "out.mkv"),
    ("yuv422p", "libx264", "out.mp4"),
    ("yuv420p12le", "ffv1", "out.mkv"),
    ("yuva420p", "ffv1", "out.mkv"),
    ("yuva444p12le", "ffv1", "out.mkv"),
]


@pytest.mark.parametrize(("pix_fmt", "codec", "name"), LOSSLESS)
def test_every_level_and_alpha_pass_untouched_where_the_codec_is_lossless(
    tmp_path, pix_fmt, codec, name
):
    clip = write_clip(tmp_path / "c.mkv", 7, codec="ffv1", pix_fmt=pix_fmt, picture=deep_planes)
    sink, facts, _ = double(clip, tmp_path / name, tmp_path, codec=codec, crf=0)
    assert sink.warnings == []
    before, after = rows(clip)[0], rows(tmp_path / name)[0]
    with av.open(str(tmp_path / name)) as container:
        assert container.streams.video[0].codec_context.pix_fmt == pix_fmt
    assert np.array_equal(before, after[::2])
    assert np.array_equal(after[1::2, : facts.color_bytes], blend(before, facts))
    if facts.has_alpha:
        alpha = before[:, facts.color_bytes :].view(np.uint8 if facts.bit_depth == 8 else "<u2")
        mean = (alpha[:-1].astype(int) + alpha[1:] + 1) // 2
        found = after[1::2, facts.color_bytes :].view(alpha.dtype)
        assert np.array_equal(found, mean)


@pytest.mark.parametrize(
    ("codec", "name", "written"),
    [
        ("libx265", "out.mp4", "yuv420p10le"),
        ("libsvtav1", "out.mp4", "yuv420p10le"),
        ("prores_ks", "out.mov", "yuv422p10le"),
    ],
)
def test_ten_bits_stay_ten_bits(tmp_path, codec, name, written):
    clip = write_clip(tmp_path / "c.mkv", 4, codec="ffv1", pix_fmt="yuv420p10le")
    preset = {"libx265": "ultrafast", "libsvtav1": "12", "prores_ks": "none"}[codec]
    sink, _, _ = double(clip, tmp_path / name, tmp_path, codec=codec, preset=preset, crf=10)
    assert sink.warnings == []
    with av.open(str(tmp_path / name)) as container:
        assert container.streams.video[0].codec_context.pix_fmt == written
    assert len(shown(tmp_path / name)) == 7


def test_an_encoder_of_eight_bits_gets_the_same_levels_and_it_is_said(tmp_path):
    def picture(number, size, pix_fmt):
        frame = av.VideoFrame(*size, pix_fmt)
        for plane, value in zip(frame.planes, (4 * 61, 4 * 140, 4 * 90), strict=True):
            np.frombuffer(plane, np.uint16)[:] = value
        return frame

    clip = write_clip(tmp_path / "c.mkv", 3, codec="ffv1", pix_fmt="yuv420p10le", picture=picture)
    sink, _, _ = double(clip, tmp_path / "o.avi", tmp_path, codec="mpeg4", preset="none", crf=1)
    (line,) = sink.warnings
    assert line.startswith("10 bits a sample become 8: mpeg4 has no more here; take libx264")
    for frame in pictures(tmp_path / "o.avi"):
        for plane, value in zip(
            np.split(frame.reshape(-1), [3072, 3840]), (61, 140, 90), strict=True
        ):
            assert np.abs(plane.astype(int) - value).max() <= 1


@pytest.mark.parametrize(
    ("codec", "source"), [("libvpx-vp9", "clip.webm"), ("prores_ks", "clip.mov")]
)
def test_alpha_comes_out_of_the_kind_of_file_it_came_in(tmp_path, codec, source):
    pix_fmt = "yuva420p" if codec == "libvpx-vp9" else "yuva444p10le"
    options = {"cpu-used": "8", "crf": "4"} if codec == "libvpx-vp9" else {}
    clip = write_clip(tmp_path / source, 5, codec=codec, pix_fmt=pix_fmt, options=options)
    output = tmp_path / f"out.{source[5:]}"
    _, facts, _ = double(clip, output, tmp_path, codec=codec, preset="none", crf=4)
    before, _ = rows(clip)
    after, found = rows(output)
    assert (found.has_alpha, found.bit_depth) == (True, facts.bit_depth)
    assert len(after) == 9
    assert [time * 50 for time in shown(output)] == list(range(9))
    kind = np.uint8 if facts.bit_depth == 8 else "<u2"
    alphas = [every[:, facts.color_bytes :].view(kind).astype(int) for every in (before, after)]
    assert alphas[0].std() > 20, "a flat alpha: this test proves nothing"
    assert np.abs(alphas[0] - alphas[1][::2]).mean() < 2 * 2 ** (facts.bit_depth - 8)
    with av.open(str(output)) as one, av.open(clip) as other:
        tags = [file.streams.video[0].codec_context.codec_tag for file in (one, other)]
        assert tags[0] == tags[1]


def test_alpha_that_the_codec_has_not_is_dropped_and_said(tmp_path):
    clip = write_clip(tmp_path / "c.mkv", 3, codec="ffv1", pix_fmt="yuva420p")
    sink, _, _ = double(clip, tmp_path / "out.mp4", tmp_path, crf=0)
    assert sink.warnings == [
        "alpha is dropped: libx264 has none here;"
        " take prores_ks (.mov), ffv1 (.mkv) or libvpx-vp9 (.webm)"
    ]
    opaque = write_clip(tmp_path / "o.mkv", 3, codec="ffv1", pix_fmt="yuv420p")
    for found, wanted in zip(pictures(tmp_path / "out.mp4")[::2], pictures(opaque), strict=True):
        assert np.array_equal(found, wanted)


def test_alpha_that_the_container_cannot_hold_is_dropped_and_said(tmp_path):
    clip = write_clip(tmp_path / "c.mkv", 3, codec="ffv1", pix_fmt="yuva420p")
    vp9 = {"codec": "libvpx-vp9", "preset": "none"}
    sink, _, _ = double(clip, tmp_path / "out.mp4", tmp_path, **vp9)
    (line,) = sink.warnings
    assert line.startswith("alpha is dropped: libvpx-vp9 has none here; take ")
    assert len(shown(tmp_path / "out.mp4")) == 5


def test_alpha_of_webm_is_not_promised_where_it_was_dropped(tmp_path):
    options = {"cpu-used": "8"}
    clip = write_clip(
        tmp_path / "c.webm", 3, codec="libvpx-vp9", pix_fmt="yuva420p", options=options
    )
    double(clip, tmp_path / "out.mkv", tmp_path)
    with av.open(str(tmp_path / "out.mkv")) as container:
        assert "alpha_mode" not in {tag.lower() for tag in container.streams.video[0].metadata}


DISPLAY = (34000, 16000, 13250, 34500, 7500, 3000, 15635, 16450, 10000000, 50)
LIGHT = (1000, 400)


def hdr_clip(path):
    """Ten bits, BT.2020, PQ, with what HDR10 says of display and brightness."""

    def setup(container, stream):
        context = stream.codec_context
        context.colorspace, context.color_primaries, context.color_trc = 9, 9, 16
        context.color_range = 1

    display = "G(13250,34500)B(7500,3000)R(34000,16000)WP(15635,16450)L(10000000,50)"
    options = {"x264-params": f"mastering-display={display}:cll=1000,400"}
    return write_clip(path, 4, pix_fmt="yuv420p10le", setup=setup, options=options)


@pytest.mark.parametrize(
    ("codec", "preset"), [("libx264", "ultrafast"), ("libx265", "ultrafast"), ("libsvtav1", "12")]
)
def test_hdr_is_kept_with_its_tags_its_display_and_its_light(tmp_path, codec, preset):
    clip = hdr_clip(tmp_path / "clip.mp4")
    output = tmp_path / "out.mp4"
    sink, facts, _ = double(clip, output, tmp_path, codec=codec, preset=preset)
    shown_as = facts.presentation
    assert (shown_as.primaries, shown_as.transfer, shown_as.matrix) == (9, 16, 9)
    assert (shown_as.mastering_display, shown_as.content_light) == (DISPLAY, LIGHT)
    source, found = opened(output)
    source.close()
    again = found.presentation
    assert (again.primaries, again.transfer, again.matrix) == (9, 16, 9)
    assert (again.tagged_range, found.bit_depth) == ("limited", 10)
    assert again.content_light == LIGHT
    step = 2 if codec == "libsvtav1" else 0  # AV1 has units of its own
    assert np.abs(np.subtract(again.mastering_display, DISPLAY)).max() <= step
    assert sink.warnings == []


def test_what_a_codec_does_not_say_of_hdr_is_said(tmp_path):
    sink, _, _ = double(hdr_clip(tmp_path / "c.mp4"), tmp_path / "o.mkv", tmp_path, codec="ffv1")
    assert sink.warnings == [
        "mastering display and light levels are left out of ffv1;"
        " libx264, libx265, libsvtav1 write them"
    ]
    source, facts = opened(tmp_path / "o.mkv")
    source.close()
    assert facts.presentation.transfer == 16


@pytest.mark.parametrize("matrix", [8, 14])
def test_a_matrix_that_is_not_known_is_kept_and_said(tmp_path, matrix):
    def setup(container, stream):
        stream.colorspace = matrix

    source, facts = opened(write_clip(tmp_path / "clip.mp4", 2, setup=setup))
    source.close()
    assert (facts.presentation.matrix, facts.color_matrix) == (matrix, "bt601")
    assert source.warnings == [
        f"{tmp_path}/clip.mp4: frames between take colour matrix {matrix} for bt601"
    ]


def test_interlaced_video_is_said(tmp_path):
    options = {"x264-params": "tff=1:interlaced=1"}
    clip = write_clip(tmp_path / "clip.mkv", 3, size=(64, 64), options=options)
    source, _ = opened(clip)
    source.close()
    (line,) = source.warnings
    assert "is interlaced; deinterlace it first" in line


def test_a_plain_video_has_no_warnings(tmp_path):
    source, _ = opened(write_clip(tmp_path / "clip.mp4", 3))
    source.close()
    assert (source.warnings, source.broken) == ([], "")


@pytest.mark.parametrize(("size", "words"), [((30, 64), "30x64 is under 32"), ((64, 16), "64x16")])
def test_pictures_that_are_too_small_are_refused_with_their_size(tmp_path, size, words):
    clip = write_clip(tmp_path / "clip.mkv", 3, size=size, codec="ffv1")
    with pytest.raises(UserError, match=f"clip.mkv: {words}.* pixels a side; enlarge or pad") as e:
        opened(clip)
    assert "\n" not in str(e.value)


def test_pictures_that_are_too_large_are_refused_with_their_size(tmp_path):
    def picture(number, size, pix_fmt):
        return av.VideoFrame(*size, pix_fmt)

    clip = write_clip(tmp_path / "clip.mkv", 2, size=(16386, 32), codec="ffv1", picture=picture)
    with pytest.raises(UserError, match="16386x32 is over 16384 pixels a side; scale it down"):
        opened(clip)
