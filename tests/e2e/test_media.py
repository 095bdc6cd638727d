"""Video as people really have it, through the real command line."""

import json

import av
import numpy as np
import pytest

from tests.stages.video.clips import deep_planes, tone, write_clip
from tests.stages.video.damaged import overwrite

QUICK = ("--set", "model.weights=random:0:tiny", "--set", "video.preset=ultrafast")


@pytest.fixture
def interpolate(runpipe, tmp_path):
    """Double a video; return the finished process and what its report says."""

    def run(source, output, *more):
        done = runpipe(
            *("--config", "demo.yaml", *QUICK, "--run-dir", "run", *more),
            *("--input", source, "--output", output),
        )
        assert "Traceback" not in done.stderr
        return done, json.loads((tmp_path / "run/report.json").read_text())

    return run


def frames_of(path, pixel_format=None):
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        seen = pixel_format or stream.codec_context.pix_fmt
        return seen, [f.reformat(format=seen).to_ndarray() for f in container.decode(stream)]


def test_ten_bits_come_out_as_ten_bits_and_source_frames_exactly(interpolate, tmp_path):
    source = write_clip(
        tmp_path / "ten.mkv", 6, codec="ffv1", pix_fmt="yuv420p10le", picture=deep_planes
    )
    done, report = interpolate(source, tmp_path / "out.mp4", "--set", "video.crf=0")
    assert done.returncode == 0, done.stderr
    assert report["warnings"] == []
    (_, before), (seen, after) = frames_of(source), frames_of(tmp_path / "out.mp4")
    assert seen == "yuv420p10le"
    assert len(after) == 11
    for one, other in zip(before, after[::2], strict=True):
        assert np.array_equal(one, other)


def test_alpha_is_kept_or_said_before_anything_is_written(interpolate, tmp_path):
    source = write_clip(
        tmp_path / "alpha.webm",
        4,
        codec="libvpx-vp9",
        pix_fmt="yuva420p",
        options={"cpu-used": "8"},
    )
    done, report = interpolate(source, tmp_path / "out.mp4")
    assert done.returncode == 0, done.stderr
    (warning,) = report["warnings"]
    assert "alpha is dropped" in warning
    assert done.stderr.count("alpha is dropped") == 1
    assert "ffv1" in warning


def test_a_file_cut_short_is_done_as_far_as_it_goes(interpolate, tmp_path):
    whole = tmp_path / "whole.mkv"
    write_clip(whole, 40, options={"g": "10", "qp": "10"}, extra=tone(1.6))
    content = whole.read_bytes()
    (tmp_path / "cut.mkv").write_bytes(content[: len(content) // 2])
    done, report = interpolate(tmp_path / "cut.mkv", tmp_path / "out.mp4")
    assert done.returncode == 1
    assert "cut.mkv: cut short, ends after" in done.stderr
    assert report["status"] == "failed"
    pairs = report["units"]["done"]
    assert 10 < pairs < 30
    assert len(frames_of(tmp_path / "out.mp4")[1]) == 2 * pairs + 1


def test_a_file_torn_in_the_middle_loses_that_window_only(interpolate, tmp_path):
    torn = tmp_path / "torn.mkv"
    write_clip(torn, 40, options={"g": "10", "qp": "10"})
    overwrite(torn, 33, 200)
    done, report = interpolate(torn, tmp_path / "out.mp4")
    assert done.returncode == 1
    assert "frame 33" in done.stderr
    assert report["items"]["failed"] >= 1
    assert report["items"]["done"] >= 15
    assert report["units"]["done"] + report["units"]["failed"] == 39
    assert (tmp_path / "out.mp4").exists()
