"""Real videos through real processes."""

import hashlib
import json
from fractions import Fraction
from pathlib import Path

import pytest

from runtime.pipeline import Pipeline
from runtime.report import load_report
from tests.stages.video.clips import length, packets, pictures, shown, write_clip


def digest(path):
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


def test_the_demo_doubles_a_real_video_with_one_process_per_stage(runpipe, project, tmp_path):
    clip = project / "configs/demo/clip.mp4"
    tiny = ("--set", "model.weights=random:0:tiny", "--set", "video.preset=ultrafast")
    done = runpipe("--config", "demo.yaml", *tiny, "--run-dir", tmp_path / "run")
    assert done.returncode == 0, done.stderr
    assert "59 frame pairs in" in done.stdout
    assert "untrained" in done.stderr
    output = tmp_path / "demo_interpolated.mp4"
    assert len(pictures(output)) == 119
    assert shown(output)[::2] == shown(clip)
    assert length(output) == length(clip)
    assert packets(output, "audio") == packets(clip, "audio")
    report = load_report(tmp_path / "run/report.json")
    assert (report.status, report.units.done, report.items.done) == ("done", 59, 30)
    assert report.counts["scene cuts"] == 1, "the clip has one"
    assert len({worker.pid for worker in report.workers}) == 5
    assert (tmp_path / "run").stat().st_mode & 0o777 == 0o700
    assert not list((tmp_path / "run/segments").iterdir()), "joined, so needed no more"


@pytest.fixture(scope="module")
def inline_digest(tmp_path_factory, clip):
    from runtime.config import load_config

    folder = tmp_path_factory.mktemp("inline")
    config = load_config("demo.yaml", ["model.weights=random:0:tiny", "video.preset=ultrafast"])
    with Pipeline(config, inline=True) as pipeline:
        pipeline.run(input=clip, output=folder / "out.mp4", run_dir=folder / "run")
    return digest(folder / "out.mp4")


@pytest.mark.parametrize(
    "overrides",
    [
        (),
        ("groups=[[encode, decode]]",),
        ("groups=[[encode, denoise, decode]]", "stages.write.replicas=2"),
        ("groups=[[read, encode, denoise, decode, write]]",),
        pytest.param(
            ("stages.denoise.replicas=2", "stages.write.replicas=2", "run.threads=1"),
            marks=pytest.mark.nightly,
        ),
    ],
    ids=["apart", "around denoise", "one model worker", "one worker", "replicas"],
)
def test_every_placement_writes_the_same_bytes(tiny, clip, tmp_path, inline_digest, overrides):
    with Pipeline(tiny(*overrides)) as pipeline:
        pipeline.run(input=clip, output=tmp_path / "out.mp4", run_dir=tmp_path / "run")
    assert digest(tmp_path / "out.mp4") == inline_digest


def test_two_sizes_one_after_the_other_through_the_same_workers(tiny, clip, tmp_path):
    odd = write_clip(
        tmp_path / "odd.mp4", 6, size=(107, 65), pix_fmt="yuv444p", options={"crf": "10"}
    )
    with Pipeline(tiny()) as pipeline:
        first = pipeline.run(input=clip, output=tmp_path / "a.mp4", run_dir=tmp_path / "a")
        second = pipeline.run(input=odd, output=tmp_path / "b.mp4", run_dir=tmp_path / "b")
    assert [w.pid for w in first.workers] == [w.pid for w in second.workers]
    assert len(pictures(tmp_path / "a.mp4")) == 33
    assert len(pictures(tmp_path / "b.mp4")) == 11
    assert pictures(tmp_path / "b.mp4")[0].shape == (3, 65, 107)


@pytest.mark.parametrize(
    "count",
    [2, 9, pytest.param(3, marks=pytest.mark.nightly), pytest.param(4, marks=pytest.mark.nightly)],
)
def test_any_number_of_frames_gives_twice_as_many_less_one(tiny, tmp_path, count):
    source = write_clip(tmp_path / "in.mp4", count, size=(32, 32))
    config = tiny("video.pairs=3", "groups=[[read, encode, denoise, decode, write]]")
    with Pipeline(config) as pipeline:
        report = pipeline.run(input=source, output=tmp_path / "out.mp4", run_dir=tmp_path / "run")
    assert len(pictures(tmp_path / "out.mp4")) == 2 * count - 1
    assert report.units.done == count - 1


def test_a_variable_rate_stays_exact(tiny, tmp_path):
    ticks = [1000, 1512, 1600, 3000, 3001, 5120]
    source = write_clip(
        tmp_path / "in.mkv",
        6,
        pts=ticks,
        time_base=Fraction(1, 1000),
        codec="ffv1",
        size=(64, 48),
    )
    with Pipeline(tiny("video.codec=ffv1")) as pipeline:
        pipeline.run(input=source, output=tmp_path / "out.mkv", run_dir=tmp_path / "run")
    exact = [Fraction(t, 1000) for t in ticks]
    times = shown(tmp_path / "out.mkv")
    assert times[::2] == exact
    for middle, before, after in zip(times[1::2], exact[:-1], exact[1:], strict=True):
        assert abs(middle - (before + after) / 2) <= Fraction(1, 2000), "mkv counts milliseconds"


def test_source_frames_pass_untouched_and_middles_are_made(tiny, clip, tmp_path):
    lossless = write_clip(tmp_path / "in.mp4", 5, size=(96, 64), options={"crf": "0"})
    with Pipeline(tiny("video.crf=0")) as pipeline:
        pipeline.run(input=lossless, output=tmp_path / "out.mp4", run_dir=tmp_path / "run")
    before, after = pictures(lossless), pictures(tmp_path / "out.mp4")
    for source, same in zip(before, after[::2], strict=True):
        assert (source == same).all()
    for middle, neighbour in zip(after[1::2], after[::2], strict=False):
        assert (middle != neighbour).any()


def test_a_worker_killed_by_hand_comes_back_and_the_video_has_the_same_bytes(tiny, tmp_path):
    import os
    import signal
    import threading

    def kill(live):
        def when_begun():
            while not live.tally.units_done:
                threading.Event().wait(0.01)
            pids = json.loads((tmp_path / "run/workers.json").read_text())
            os.kill(pids["denoise/0"], signal.SIGKILL)

        thread.append(threading.Thread(target=when_begun))
        thread[0].start()

    thread = []
    source = write_clip(tmp_path / "long.mp4", 150, size=(96, 64))
    with Pipeline(tiny()) as pipeline:
        report = pipeline.run(
            input=source, output=tmp_path / "out.mp4", run_dir=tmp_path / "run", on_start=kill
        )
        thread[0].join()
        pipeline.run(input=source, output=tmp_path / "whole.mp4", run_dir=tmp_path / "whole")
    assert {w.name: w.restarts for w in report.workers if w.restarts} == {"denoise/0": 1}
    assert (report.status, report.units.done, report.items.failed) == ("done", 149, 0)
    assert report.items.replayed > 0
    assert digest(tmp_path / "out.mp4") == digest(tmp_path / "whole.mp4")


def loaded(pid, library):
    return library in Path(f"/proc/{pid}/maps").read_text()


def test_reading_and_writing_need_no_model_library(tiny, clip, tmp_path):
    with Pipeline(tiny()) as pipeline:
        report = pipeline.run(input=clip, output=tmp_path / "out.mp4", run_dir=tmp_path / "run")
        torch = {worker.name: loaded(worker.pid, "libtorch") for worker in report.workers}
    assert torch == {
        "read/0": False,
        "encode/0": True,
        "denoise/0": True,
        "decode/0": True,
        "write/0": False,
    }


@pytest.mark.slow
def test_a_long_video_needs_no_more_memory_than_a_short_one(tiny, tmp_path):
    """500 frames more are 14 MiB more, wherever they would be kept."""
    peaks = {}
    config = tiny("groups=[[encode, denoise, decode]]", "video.pairs=1")
    for count in (100, 600):
        source = write_clip(tmp_path / f"{count}.mp4", count, size=(160, 120))
        with Pipeline(config) as pipeline:
            report = pipeline.run(
                input=source, output=tmp_path / f"{count}-out.mp4", run_dir=tmp_path / f"run{count}"
            )
        peaks[count] = {w.name: w.max_rss_bytes / 2**20 for w in report.workers}
    grown = {name: peaks[600][name] - peaks[100][name] for name in peaks[100]}
    assert all(mib < 8 for mib in grown.values()), (grown, peaks)
