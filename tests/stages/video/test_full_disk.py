"""A segment that cannot be written leaves nothing behind, and can be written again."""

import os
import resource
from contextlib import contextmanager

import av
import pytest

from stages.base import Job
from stages.video import ReadVideo, WriteVideo, encode
from stages.video.encode import Encoding, SegmentWriter
from tests.stages.video.clips import deep_planes, sent, shown, write_clip


@contextmanager
def full_disk(num_bytes):
    """No file may get longer than this; as on a full disk, writing fails."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.fixture
def opened_sink(tmp_path):
    clip = write_clip(tmp_path / "clip.mkv", 25, codec="ffv1", size=(128, 96), picture=deep_planes)
    job = Job(input=clip, output=str(tmp_path / "out.mkv"), work_dir=str(tmp_path / "work"))
    source = ReadVideo(pairs=4, threads=1)
    sink = WriteVideo(threads=1, segment_windows=6, codec="ffv1", preset="none")
    facts = source.open(job)
    sink.open(facts)
    yield sink, source, facts
    sink.close()
    source.close()


def write_all(sink, source, facts):
    for key in range(facts.num_windows):
        sink.write(*sent(source, facts, key))


def test_a_full_disk_leaves_no_file_and_no_descriptor_and_work_goes_on_after_it(
    tmp_path, opened_sink
):
    sink, source, facts = opened_sink
    before = len(os.listdir("/proc/self/fd"))
    with full_disk(40000):
        with pytest.raises((OSError, av.FFmpegError)):
            write_all(sink, source, facts)
        sink.close()
        assert os.listdir(tmp_path / "work" / "segments") == []
        assert len(os.listdir("/proc/self/fd")) <= before + 1  # the source's
    write_all(sink, source, facts)
    sink.finish(range(facts.num_windows))
    assert len(shown(tmp_path / "out.mkv")) == 49


def test_a_segment_whose_encoder_fails_is_closed_and_deleted(tmp_path, opened_sink, monkeypatch):
    _, _, facts = opened_sink
    encoding = Encoding(codec="ffv1", crf=0, preset="", threads=1, pixel_format="yuv420p")
    add_encoder = encode.add_encoder

    def failing(container, *rest):
        add_encoder(container, *rest)
        container.start_encoding()
        raise ValueError("it broke")

    monkeypatch.setattr(encode, "add_encoder", failing)
    with pytest.raises(ValueError, match="it broke"):
        SegmentWriter(tmp_path / "000000.nut", facts, encoding)
    assert not (tmp_path / "000000.part").exists()


def test_what_a_killed_writer_left_goes_with_the_segments(tmp_path, opened_sink):
    sink, source, facts = opened_sink
    left = tmp_path / "work/segments/000000.part"
    left.write_bytes(b"half")
    write_all(sink, source, facts)
    (tmp_path / "work/segments/000009.part").write_bytes(b"half")
    sink.finish(range(facts.num_windows))
    assert os.listdir(tmp_path / "work/segments") == []
    assert len(shown(tmp_path / "out.mkv")) == 49
