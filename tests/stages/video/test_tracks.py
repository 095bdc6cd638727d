from fractions import Fraction
from itertools import pairwise

import av
import pytest

from tests.stages.video.clips import double, packets, shown, subtitles, tone, write_clip


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "mov"])
@pytest.mark.parametrize("start", [0, 3200])
def test_sound_is_copied_packet_by_packet_in_sync(tmp_path, suffix, start):
    pts = [start + 512 * number for number in range(10)]
    clip = write_clip(tmp_path / "clip.mp4", 10, pts=pts, extra=tone())
    output = tmp_path / f"out.{suffix}"
    double(clip, output, tmp_path)
    before, after = packets(clip, "audio"), packets(output, "audio")
    assert [data for data, _ in after] == [data for data, _ in before]
    offset = shown(output)[0] - shown(clip)[0]
    assert abs(offset) <= Fraction(30, 1000)  # Matroska shifts all, for AAC starts before 0
    tolerance = Fraction(1, 500) if suffix == "mkv" else 0
    for (_, time), (_, wanted) in zip(after, before, strict=True):
        assert abs(time - wanted - offset) <= tolerance
    with av.open(str(output)) as container:
        assert container.streams.audio[0].language == "ita"


def test_a_transport_stream_is_brought_to_the_start_in_sync(tmp_path):
    clip = write_clip(tmp_path / "clip.ts", 20, extra=tone(0.8))
    double(clip, tmp_path / "out.mp4", tmp_path)
    assert min(shown(tmp_path / "out.mp4")[0], packets(tmp_path / "out.mp4", "audio")[0][1]) == 0
    lead = shown(clip)[0] - packets(clip, "audio")[0][1]
    new_lead = shown(tmp_path / "out.mp4")[0] - packets(tmp_path / "out.mp4", "audio")[0][1]
    assert abs(lead - new_lead) < Fraction(1, 10000)
    step = Fraction(1, 50)
    times = shown(tmp_path / "out.mp4")
    assert [b - a for a, b in pairwise(times)] == [step] * 38


def test_subtitles_are_copied_with_their_language(tmp_path):
    clip = write_clip(tmp_path / "clip.mkv", 10, extra=subtitles())
    sink, _, _ = double(clip, tmp_path / "out.mkv", tmp_path)
    assert packets(tmp_path / "out.mkv", "subtitle") == packets(clip, "subtitle")
    assert len(packets(clip, "subtitle")) == 2
    with av.open(str(tmp_path / "out.mkv")) as container:
        assert container.streams.subtitles[0].language == "fra"
    assert sink.warnings == []


def test_subtitles_are_converted_where_the_container_wants_others(tmp_path):
    clip = write_clip(tmp_path / "clip.mkv", 10, extra=subtitles())
    double(clip, tmp_path / "out.mp4", tmp_path)
    texts = [data[2:] for data, _ in packets(tmp_path / "out.mp4", "subtitle") if len(data) > 2]
    assert texts == [b"Bonjour", b"Au revoir"]
    with av.open(str(tmp_path / "out.mp4")) as container:
        assert container.streams.subtitles[0].language == "fra"
        assert container.streams.subtitles[0].codec_context.name == "mov_text"


def test_a_track_that_the_container_cannot_hold_is_left_out_and_said(tmp_path):
    clip = write_clip(tmp_path / "clip.mp4", 6, extra=tone())
    options = {"codec": "libvpx-vp9", "preset": "none", "crf": 40}
    sink, _, _ = double(clip, tmp_path / "out.webm", tmp_path, **options)
    assert sink.warnings == ["audio track 1 (aac) left out: webm cannot hold it"]
    assert len(shown(tmp_path / "out.webm")) == 11


def test_a_track_that_only_the_header_of_the_output_refuses_is_left_out_and_said(tmp_path):
    sound = tone(codec="libopus", rate=48000)
    vp9 = {"codec": "libvpx-vp9", "options": {"cpu-used": "8"}}
    clip = write_clip(tmp_path / "clip.webm", 6, extra=sound, **vp9)
    sink, _, _ = double(clip, tmp_path / "out.mov", tmp_path)
    assert sink.warnings == ["audio track 1 (opus) left out: mov cannot hold it"]
    assert len(shown(tmp_path / "out.mov")) == 11


def test_a_track_that_a_transport_stream_would_make_data_of_is_left_out_and_said(tmp_path):
    clip = write_clip(tmp_path / "clip.mkv", 6, extra=subtitles())
    sink, _, _ = double(clip, tmp_path / "out.ts", tmp_path)
    assert sink.warnings == ["subtitle track 1 (srt) left out: mpegts cannot hold it"]
    with av.open(str(tmp_path / "out.ts")) as container:
        assert [stream.type for stream in container.streams] == ["video"]


def test_rotation_shape_of_samples_and_colours_are_kept(tmp_path):
    def setup(container, stream):
        stream.set_display_rotation(90)
        stream.sample_aspect_ratio = Fraction(4, 3)
        stream.color_range, stream.colorspace = 2, 1
        stream.color_primaries, stream.color_trc = 1, 13
        container.metadata["title"] = "A walk"

    clip = write_clip(tmp_path / "clip.mp4", 5, setup=setup)
    double(clip, tmp_path / "out.mp4", tmp_path)
    for path in (clip, str(tmp_path / "out.mp4")):
        with av.open(path) as container:
            frame = next(container.decode(video=0))
            assert container.metadata["title"] == "A walk"
            assert container.streams.video[0].sample_aspect_ratio == Fraction(4, 3)
            assert frame.rotation == 90
            assert (frame.color_range, frame.colorspace) == (2, 1)
            assert (frame.color_primaries, frame.color_trc) == (1, 13)


def test_fonts_chapters_and_a_second_sound_track_are_kept(tmp_path):
    def extra(container):
        container.add_attachment("font.ttf", "font/ttf", b"not really a font")
        container.set_chapters(
            [
                {
                    "id": 1,
                    "start": 0,
                    "end": 200,
                    "time_base": Fraction(1, 1000),
                    "metadata": {"title": "One"},
                }
            ]
        )
        return [*tone()(container), *tone(language="eng", codec="libopus", rate=48000)(container)]

    clip = write_clip(tmp_path / "clip.mkv", 10, extra=extra)
    sink, _, _ = double(clip, tmp_path / "out.mkv", tmp_path)
    with av.open(str(tmp_path / "out.mkv")) as container:
        assert [stream.language for stream in container.streams.audio] == ["ita", "eng"]
        assert container.streams.attachments[0].data == b"not really a font"
        assert container.chapters()[0]["metadata"] == {"title": "One"}
    assert sink.warnings == []


def test_a_second_video_is_left_out_and_said(tmp_path):
    def extra(container):
        stream = container.add_stream("mpeg4", rate=25)
        stream.width, stream.height = 32, 32
        return [*stream.encode(av.VideoFrame(32, 32, "yuv420p")), *stream.encode()]

    clip = write_clip(tmp_path / "clip.mkv", 10, extra=extra)
    sink, _, _ = double(clip, tmp_path / "out.mkv", tmp_path)
    assert sink.warnings == ["video track 1 (mpeg4) left out: only the first video is kept"]


@pytest.mark.parametrize("suffix", ["avi", "mp4"])
def test_a_title_that_is_no_utf8_stops_nothing(tmp_path, suffix):
    def setup(container, stream):
        container.metadata["title"] = "Caf#"

    clip = tmp_path / f"clip.{suffix}"
    write_clip(clip, 4, codec="mpeg4", setup=setup)
    content = clip.read_bytes()
    assert content.count(b"Caf#") == 1
    clip.write_bytes(content.replace(b"Caf#", "Caf\u00e9".encode("latin-1")))
    double(clip, tmp_path / "out.mkv", tmp_path)
    with av.open(str(tmp_path / "out.mkv")) as container:
        assert container.metadata["title"] == "Caf\ufffd"
