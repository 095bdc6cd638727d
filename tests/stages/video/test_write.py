import filecmp
import os
import re
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import av
import numpy as np
import pytest

from stages.base import Item, Job, UserError
from stages.video import ReadVideo, WriteVideo
from tests.stages.video.clips import (
    blend,
    double,
    length,
    opened,
    pictures,
    read_window,
    shown,
    tone,
    write_clip,
)


def middles(times):
    """The times that the doubled video has: the given ones, and the middles between them."""
    between = [(a + b) / 2 for a, b in pairwise(times)]
    return sorted([*times, *between])


@pytest.mark.parametrize("n", [2, 3, 6, 7, 8, 20])
def test_n_frames_become_two_n_minus_one_of_the_same_length(tmp_path, n):
    clip = write_clip(tmp_path / "clip.mp4", n)
    sink, _, durable = double(clip, tmp_path / "out.mp4", tmp_path)
    assert shown(tmp_path / "out.mp4") == middles(shown(clip))
    assert length(tmp_path / "out.mp4") == length(clip) == Fraction(n, 25)
    assert sum(part.counts["frame pairs"] for part in durable) == n - 1
    assert sink.warnings == []
    assert not list((tmp_path / "work" / "segments").iterdir())


UNEVEN = [640, 700, 1900, 1902, 5000, 5120, 9000, 9002, 9004, 70000, 70006]


@pytest.mark.parametrize("suffix", ["mp4", "mov"])
@pytest.mark.parametrize("pts", [UNEVEN, [t - 640 for t in UNEVEN], [t * 512 for t in range(9)]])
def test_new_frames_lie_in_the_middle_also_where_times_are_uneven(tmp_path, pts, suffix):
    clip = write_clip(tmp_path / "clip.mp4", len(pts), pts=pts)
    output = tmp_path / f"out.{suffix}"
    _, facts, _ = double(clip, output, tmp_path)
    times = shown(clip)
    assert shown(output) == middles(times)
    last = Fraction(facts.presentation.last_duration, 12800)
    assert length(output) == times[-1] - times[0] + last


def test_matroska_keeps_times_to_its_own_millisecond(tmp_path):
    clip = write_clip(tmp_path / "clip.mp4", 20, rate=30, time_base=Fraction(1, 15360))
    double(clip, tmp_path / "out.mkv", tmp_path)
    expected = middles(shown(clip))
    for time, wanted in zip(shown(tmp_path / "out.mkv"), expected, strict=True):
        assert abs(time - wanted) <= Fraction(1, 2000)


def test_packets_are_stored_in_an_order_that_players_can_decode(tmp_path):
    clip = write_clip(tmp_path / "clip.mp4", 40, pts=[t * t * 30 for t in range(40)])
    double(clip, tmp_path / "out.mp4", tmp_path, preset="medium")
    with av.open(str(tmp_path / "out.mp4")) as container:
        found = [(p.dts, p.pts) for p in container.demux(video=0) if p.pts is not None]
    assert all(dts <= pts for dts, pts in found)
    assert all(a[0] < b[0] for a, b in pairwise(found))
    assert any(dts != pts for dts, pts in found), "no B-frames: this test proves nothing"


@pytest.mark.parametrize("size", [(64, 48), (65, 107), (32, 32)])
def test_source_frames_pass_untouched_where_the_codec_is_lossless(tmp_path, size):
    pix_fmt = "yuv444p" if size[0] % 2 else "yuv420p"
    clip = write_clip(tmp_path / "clip.mp4", 8, size=size, pix_fmt=pix_fmt)
    double(clip, tmp_path / "out.mp4", tmp_path, crf=0)
    expected, found = pictures(clip), pictures(tmp_path / "out.mp4")
    assert len(found) == 15
    for before, after in zip(expected, found[::2], strict=True):
        assert np.array_equal(before, after)
    source, facts = opened(clip)
    frames, _ = read_window(source, facts, 0)
    assert np.array_equal(found[1].reshape(-1), blend(frames)[0])
    source.close()


def one_cut(path):
    """A clip whose picture changes at frame 4."""
    noise = np.random.default_rng(5).integers(0, 255, (2, 6, 8)).astype(np.uint8)

    def picture(number, size, pix_fmt):
        luma = np.kron(noise[int(number >= 4)], np.ones((8, 8), np.uint8))
        planes = np.concatenate([luma.reshape(-1), np.full(64 * 48 // 2, 128, np.uint8)])
        return av.VideoFrame.from_ndarray(planes.reshape(72, 64), "yuv420p")

    return write_clip(path, 8, picture=picture, options={"qp": "0"})


def test_at_a_cut_the_earlier_frame_is_shown_twice(tmp_path):
    clip = one_cut(tmp_path / "clip.mp4")
    _, _, durable = double(clip, tmp_path / "out.mp4", tmp_path, crf=0)
    found = pictures(tmp_path / "out.mp4")
    assert np.array_equal(found[7], found[6])
    assert not np.array_equal(found[7], found[8])
    assert [dict(part.counts) for part in durable] == [
        {"frame pairs": 6, "scene cuts": 1},
        {"frame pairs": 1, "scene cuts": 0},
    ]


def test_a_failed_window_keeps_its_source_frames_and_all_times(tmp_path):
    clip = write_clip(tmp_path / "clip.mp4", 12)
    _, _, durable = double(clip, tmp_path / "out.mp4", tmp_path, failed={1}, crf=0)
    times = shown(clip)
    kept = [time for time in middles(times) if time in times or not times[3] < time < times[6]]
    assert shown(tmp_path / "out.mp4") == kept
    assert length(tmp_path / "out.mp4") == length(clip)
    assert sum(part.counts["frame pairs"] for part in durable) == 8


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_the_file_is_the_same_whether_one_or_two_write_it_and_each_time(tmp_path, threads, suffix):
    clip = write_clip(tmp_path / "clip.mp4", 40, extra=tone(1.6))
    outputs = [tmp_path / f"{number}.{suffix}" for number in range(3)]
    for output, replicas in zip(outputs, (1, 1, 2), strict=True):
        double(clip, output, tmp_path, replicas=replicas, threads=threads)
    assert filecmp.cmp(outputs[0], outputs[1], shallow=False)
    assert filecmp.cmp(outputs[0], outputs[2], shallow=False)


def test_segments_become_durable_one_by_one_and_synced(tmp_path):
    clip = write_clip(tmp_path / "clip.mp4", 20)
    _, _, durable = double(clip, tmp_path / "out.mp4", tmp_path, segment_windows=3)
    assert [part.items for part in durable] == [(0, 1, 2), (3, 4, 5), (6,)]
    assert [part.files for part in durable] == [(f"segments/00000{i}.nut",) for i in range(3)]


def test_a_segment_can_be_written_again_from_its_start(tmp_path):
    clip = write_clip(tmp_path / "clip.mp4", 10)
    source, facts = opened(clip)
    job = Job(input=clip, output=str(tmp_path / "out.mp4"), work_dir=str(tmp_path / "work"))
    facts = source.open(job)
    sink = WriteVideo(threads=1, segment_windows=2)
    sink.open(facts)
    for key in (0, 0, 1, 2):
        frames, meta = read_window(source, facts, key)
        item = Item(index=key, attempt=0, meta=meta)
        sink.write(item, {"frames": frames, "middle": blend(frames)}, meta)
    assert [part.items for part in sink.commit()] == [(0, 1), (2,)]
    assert sink.commit() == []
    with pytest.raises(ValueError, match="window 1 does not follow"):
        sink.write(Item(index=1, attempt=0, meta=meta), {"frames": frames}, meta)
    sink.finish((0, 1, 2))
    assert len(shown(tmp_path / "out.mp4")) == 19
    source.close()


CODECS = [
    ("libx264", "mp4", "veryfast"),
    ("libx265", "mp4", "ultrafast"),
    ("libx265", "mkv", "ultrafast"),
    ("libsvtav1", "mp4", "12"),
    ("libvpx-vp9", "webm", "none"),
    ("mpeg4", "mp4", "none"),
    ("mpeg4", "avi", "none"),
    ("ffv1", "mkv", "none"),
]


@pytest.mark.parametrize(("codec", "suffix", "preset"), CODECS)
def test_every_codec_gives_all_frames_in_order(tmp_path, codec, suffix, preset):
    clip = write_clip(tmp_path / "clip.mp4", 14)
    output = tmp_path / f"out.{suffix}"
    double(clip, output, tmp_path, codec=codec, preset=preset, crf=10)
    found = pictures(output)
    assert len(found) == 27
    for wanted, got in zip(pictures(clip), found[::2], strict=True):
        assert np.abs(wanted.astype(int) - got).mean() < 4
    if suffix == "mp4":
        assert shown(output) == middles(shown(clip))


def test_an_avi_has_twice_the_frame_rate_of_the_source(tmp_path):
    clip = write_clip(tmp_path / "clip.mp4", 10, rate=24, time_base=Fraction(1, 12288))
    double(clip, tmp_path / "out.avi", tmp_path, codec="mpeg4", preset="none")
    assert shown(tmp_path / "out.avi") == middles(shown(clip))
    with av.open(str(tmp_path / "out.avi")) as container:
        assert container.streams.video[0].average_rate == 48


def refused(tmp_path, *, output="out.mp4", **options):
    clip = write_clip(tmp_path / "clip.mp4", 3)
    job = {"overwrite": options.pop("overwrite", False)}
    with pytest.raises(UserError) as caught:
        double(clip, tmp_path / output, tmp_path, job=job, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"codec": "libx266"}, "codec = libx266: no such encoder; try libx264"),
        ({"codec": "aac"}, "codec = aac: encodes audio, not video"),
        ({"preset": "quick"}, "codec = libx264 refuses preset = quick"),
        ({"crf": 52}, "crf = 52: libx264 takes 0 .best. to 51"),
        ({"crf": -1}, "crf = -1: libx264 takes 0"),
        ({"threads": 0}, "threads = 0: at least 1"),
        ({"segment_windows": 0}, "segment_windows = 0: at least 1"),
        ({"output": "none/out.mp4"}, "no folder .*none; make it first"),
        ({"output": "out.xyz"}, "no video container '.xyz'; use one of .mp4 .m4v"),
        ({"output": "out.webm"}, "webm cannot hold libx264; use .mkv"),
        ({"codec": "libsvtav1", "preset": "12", "output": "out.mov"}, "mov cannot hold libsvtav1"),
        ({"codec": "rawvideo", "preset": "none", "output": "out.avi"}, "rawvideo cannot be read"),
        ({"codec": "ffv1", "preset": "none", "output": "out.ts"}, "mpegts cannot hold ffv1"),
        ({"output": "."}, "a folder; name a file"),
        ({"output": "clip.mp4", "overwrite": True}, "output and input are one file"),
    ],
)
def test_what_cannot_be_written_is_refused_before_work_starts(tmp_path, options, message):
    assert re.search(message, refused(tmp_path, **options))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["clip.mp4"]


def test_an_output_that_exists_stays_unless_overwriting_is_asked_for(tmp_path):
    (tmp_path / "out.mp4").write_bytes(b"precious")
    assert "exists already; use --overwrite or another name" in refused(tmp_path)
    assert (tmp_path / "out.mp4").read_bytes() == b"precious"
    clip = tmp_path / "clip.mp4"
    double(clip, tmp_path / "out.mp4", tmp_path, job={"overwrite": True})
    assert len(shown(tmp_path / "out.mp4")) == 5


def test_an_output_that_appears_meanwhile_is_not_lost(tmp_path):
    clip = write_clip(tmp_path / "clip.mp4", 3)
    job = Job(input=clip, output=str(tmp_path / "out.mp4"), work_dir=str(tmp_path / "work"))
    source = ReadVideo(pairs=3)
    sink, facts = WriteVideo(threads=1), source.open(job)
    sink.open(facts)
    frames, meta = read_window(source, facts, 0)
    inputs = {"frames": frames, "middle": blend(frames)}
    sink.write(Item(index=0, attempt=0, meta=meta), inputs, meta)
    Path(job.output).write_bytes(b"precious")
    with pytest.raises(UserError, match="exists already"):
        sink.finish([0])
    assert Path(job.output).read_bytes() == b"precious"
    assert os.listdir(tmp_path / "work" / "segments") == ["000000.nut"]
    source.close()
