"""What a frame is kept as and written as, by names alone."""

import av
import pytest

from stages.video.formats import (
    Layout,
    encoder_formats,
    kept_layout,
    lost_by_encoding,
    lost_by_keeping,
)

OFFERED = {
    name: [offer.name for offer in av.codec.Codec(name, "w").video_formats]
    for name in ("libx264", "libx265", "libsvtav1", "libvpx-vp9", "ffv1", "prores_ks", "mpeg4")
}
NVENC = ["yuv420p", "nv12", "p010le", "yuv444p", "yuv444p16le"]  # as its list begins

YUV420, YUV422, YUV444 = "yuv420p", "yuv422p", "yuv444p"


@pytest.mark.parametrize(
    ("pix_fmt", "size", "wanted", "lost"),
    [
        ("yuv420p", (64, 48), (YUV420, 8, False), []),
        ("yuvj422p", (64, 48), (YUV422, 8, False), []),
        ("nv12", (64, 48), (YUV420, 8, False), []),
        ("p010le", (64, 48), (YUV420, 10, False), []),
        ("yuv420p9le", (64, 48), (YUV420, 10, False), []),
        ("yuv422p10le", (64, 48), (YUV422, 10, False), []),
        ("yuv422p10le", (65, 48), (YUV444, 10, False), []),
        ("yuva444p12le", (64, 48), (YUV444, 12, True), []),
        ("gray12le", (64, 48), (YUV420, 12, False), []),
        ("ya8", (64, 48), (YUV420, 8, True), []),
        ("yuv444p16le", (64, 48), (YUV444, 12, False), ["16 bits a sample become 12"]),
        ("yuva420p16le", (64, 48), (YUV420, 10, True), ["16 bits a sample become 10"]),
        ("yuv411p", (64, 48), (YUV420, 8, False), ["its colour becomes 4:2:0"]),
        ("yuv440p", (64, 48), (YUV420, 8, False), ["its colour becomes 4:2:0"]),
        ("bgra", (64, 48), (YUV420, 8, True), ["RGB becomes YUV 4:2:0"]),
        ("gbrp10le", (65, 48), (YUV444, 10, False), ["RGB becomes YUV 4:4:4"]),
        ("pal8", (64, 48), (YUV420, 8, False), ["RGB becomes YUV 4:2:0"]),
    ],
)
def test_a_frame_is_kept_as_it_is_or_the_loss_is_said(pix_fmt, size, wanted, lost):
    frame = av.VideoFrame(*size, pix_fmt)
    assert kept_layout(frame) == wanted
    assert lost_by_keeping(frame) == lost


@pytest.mark.parametrize("codec", OFFERED)
def test_what_an_encoder_has_is_written_as_it_is(codec):
    for name in OFFERED[codec]:
        if name.startswith("yuv") and "yuvj" not in name:
            layout = kept_layout(av.VideoFrame(64, 48, name))
            if layout.name == name:
                assert encoder_formats(layout, OFFERED[codec])[0] == name
                assert lost_by_encoding(layout, name, codec) == []


@pytest.mark.parametrize(
    ("layout", "offered", "best"),
    [
        (Layout(YUV420, 10, False), NVENC, "p010le"),
        (Layout(YUV444, 10, False), NVENC, "yuv444p16le"),
        (Layout(YUV420, 8, False), OFFERED["prores_ks"], "yuv422p10le"),
        (Layout(YUV420, 8, True), OFFERED["prores_ks"], "yuva444p10le"),
        (Layout(YUV444, 12, True), OFFERED["libvpx-vp9"], "yuva444p"),
        (Layout(YUV444, 12, True), OFFERED["libx264"], "yuv444p10le"),
        (Layout(YUV422, 10, False), OFFERED["libsvtav1"], "yuv420p10le"),
        (Layout(YUV422, 10, False), OFFERED["libvpx-vp9"], "yuv422p"),
        (Layout(YUV422, 10, False), OFFERED["mpeg4"], "yuv420p"),
        (Layout(YUV422, 10, False), (), "yuv422p10le"),
    ],
)
def test_an_encoder_is_given_what_loses_least(layout, offered, best):
    assert encoder_formats(layout, offered)[0] == best


@pytest.mark.parametrize(
    ("layout", "written", "words"),
    [
        (Layout(YUV420, 10, False), "p010le", []),
        (Layout(YUV420, 8, False), "yuv422p10le", []),
        (Layout(YUV420, 10, False), "yuv420p", ["10 bits a sample become 8"]),
        (Layout(YUV422, 8, False), "yuv420p", ["colour in 4:2:2 becomes 4:2:0"]),
        (
            Layout(YUV444, 12, True),
            "yuv420p10le",
            [
                "alpha is dropped: some has none here; take prores_ks",
                "12 bits a sample become 10: some has no more here; take libx265 or ffv1",
                "colour in 4:4:4 becomes 4:2:0",
            ],
        ),
    ],
)
def test_what_an_encoder_loses_is_said_with_a_way_out(layout, written, words):
    lost = lost_by_encoding(layout, written, "some")
    assert len(lost) == len(words)
    assert all(line.startswith(start) for line, start in zip(lost, words, strict=True))
