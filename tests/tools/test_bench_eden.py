import json
import re
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import msgspec
import numpy as np
import pytest
import yaml

from runtime.errors import ConfigError
from stages.base import Item, Job, UserError
from tests.stages.video.clips import write_clip
from tools.bench_eden import report_lines, targets
from tools.bench_measure import Result
from tools.bench_runs import Run, ms_a_pair
from tools.bench_stages import (
    BLOCK_BYTES,
    MemoryFrames,
    NullWriter,
    Stream,
    Written,
    block_sums,
)

TINY = ("--set", "model.weights=random:0:tiny", "--repeat", 2, "--leave-out", 2)


def bench(project, *arguments):
    command = [sys.executable, project / "tools/bench_eden.py", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300)


def run_of(time=1.0, cpu=1.0, checksum="a"):
    return Run(
        ms_a_pair=1000 * time,
        wall_s=time,
        cpu_s=cpu,
        load_s=1.0,
        checksum=checksum,
        gpu_bytes={},
    )


def written_of(stamps_ms, num_pairs):
    count = len(stamps_ms)
    return Written(
        items=tuple(range(count)),
        stamps_ns=tuple(t * 10**6 for t in stamps_ms),
        num_pairs=(num_pairs,) * count,
        checksums=("",) * count,
    )


def stream_of(folder, **sizes):
    path = folder / "stream.json"
    path.write_bytes(msgspec.json.encode(Stream(**sizes)))
    return Job(input=str(path), output=str(folder / "written.json"), work_dir=str(folder))


@pytest.mark.slow
def test_inline_and_processes_are_compared_and_compute_the_same_bytes(project, tmp_path):
    path = tmp_path / "eden.json"
    done = bench(project, *TINY, "--size", "64x48", "--pairs", 13, "--json", path)
    assert done.returncode == 0, done.stderr

    record = json.loads(path.read_text())
    assert {"date", "command", "commit", "host", "hardware", "versions"} <= set(record)
    assert "bench_eden.py --set model.weights=random:0:tiny" in record["command"]
    assert record["settings"]["pairs"] == 13
    assert record["host"]["cores"] >= 1
    assert record["stage_versions"]["torch"]
    inline, processes = record["results"]
    assert (inline["name"], processes["name"]) == ("inline", "processes")
    assert len({run["checksum"] for one in (inline, processes) for run in one["runs"]}) == 1
    for one in (inline, processes):
        assert len(one["runs"]) == 2
        assert all(run["ms_a_pair"] > 0 and run["cpu_s"] > 0 for run in one["runs"])
        assert one["cpu_spread"][0] <= one["cpu_ratio"] <= one["cpu_spread"][1]
    assert inline["time_ratio"] == inline["cpu_ratio"] == 1.0
    assert [target["wanted"] for target in record["targets"]] == [1.05, 1.5]

    head, *rows = done.stdout.splitlines()
    titles = ("contender", "ms a pair", "pairs/s", "time", "spread", "wall s", "CPU s", "CPU")
    assert tuple(re.split(r"  +", head)) == titles
    assert [row.split()[0] for row in rows[:2]] == ["inline", "processes"]
    assert "the same bytes each time; x: over inline" in done.stdout
    for target in record["targets"]:
        assert f"{'pass' if target['passed'] else 'MISS'}  {target['what']}" in done.stdout


@pytest.mark.nightly
def test_configurations_are_compared_on_a_video(project, tmp_path):
    demo = yaml.safe_load((project / "configs/demo.yaml").read_text())
    demo["input"] = None
    grouped = tmp_path / "grouped.yaml"
    grouped.write_text(yaml.safe_dump({**demo, "groups": [["encode", "decode"]]}, sort_keys=False))
    path, clip = tmp_path / "eden.json", write_clip(tmp_path / "clip.mp4", 14)
    names = ("--config", "demo", "--config", grouped)
    done = bench(project, *names, *TINY, "--source", clip, "--json", path)
    assert done.returncode == 0, done.stderr
    record = json.loads(path.read_text())
    assert [one["name"] for one in record["results"]] == ["demo", str(grouped)]
    assert record["targets"] == []
    assert "the same bytes each time; x: over demo" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("--size", "480"), "'480' is no size such as 480x270"),
        (("--config", "demo", "--config", "demo"), "each configuration once"),
        (("--part", "streams"), "say --gpu too"),
    ],
)
def test_a_mistake_is_exit_2(project, arguments, complaint):
    done = bench(project, *arguments)
    assert done.returncode == 2
    assert complaint in done.stderr


def test_an_unknown_configuration_is_named(project):
    done = bench(project, "--config", "single_gpus")
    assert done.returncode == 1
    assert "single_gpus: no such config" in done.stderr
    assert "did you mean" in done.stderr


def test_the_first_and_the_last_pairs_do_not_count():
    # 2 pairs a window; the first two windows and the last one were slow.
    written = written_of((0, 90, 190, 200, 210, 220, 300), 2)
    assert ms_a_pair(written, leave_out=5) == pytest.approx(5.0)
    assert ms_a_pair(written, leave_out=2) == pytest.approx(220 / 10)
    with pytest.raises(ConfigError, match="14 pairs, of which the first and the last 7 do not"):
        ms_a_pair(written, leave_out=7)


def test_replicas_of_the_sink_may_take_items_in_another_order():
    in_order = written_of((10, 20, 30, 40, 50, 60), 4)
    by_two = written_of((10, 30, 50, 20, 40, 60), 4)  # two segments, written side by side
    assert ms_a_pair(by_two, leave_out=4) == ms_a_pair(in_order, leave_out=4) == 2.5


def test_ratios_are_of_the_runs_side_by_side():
    first = [run_of(1.0, 1.0), run_of(2.0, 2.0), run_of(3.0, 3.0)]
    other = [run_of(0.5, 1.1), run_of(1.0, 2.0), run_of(2.4, 2.7)]
    inline, processes = Result.of("a", first, first), Result.of("b", other, first)
    assert processes.ms_a_pair == pytest.approx(1000.0)
    assert processes.time_ratio == pytest.approx(0.5)
    assert processes.time_spread == pytest.approx((0.5, 0.8))
    assert processes.cpu_ratio == pytest.approx(1.0)
    cpu, speed = targets([inline, processes])
    assert (cpu.measured, speed.measured) == pytest.approx((1.0, 2.0))
    assert (cpu.passed, speed.passed) == (True, True)
    slow = Result.of("b", [run_of(0.7, 1.06)] * 3, [run_of()] * 3)
    assert [one.passed for one in targets([inline, slow])] == [False, False]


def test_other_bytes_are_told():
    results = [Result.of("a", [run_of(), run_of(checksum="b")], [run_of(), run_of()])]
    assert "not the same bytes each time; x: over a, median" in "\n".join(report_lines(results, []))


def written_by(job, source, sinks, *, change=lambda _key, inputs: None):
    """Let sinks take segments of two windows in turn; return what was written of the whole job."""
    facts = source.open(job)
    for sink in sinks:
        sink.open(facts)
    frames, durable = [], []
    for key in range(len(source.keys())):
        shape = source.specs(facts)["frames"].shape
        inputs = {name: np.zeros(shape, np.uint8) for name in ("frames", "middle")}
        meta = source.read(key, inputs)
        inputs["middle"] += np.uint8(key)
        change(key, inputs)
        frames.append(inputs["frames"])
        sink = sinks[key // 2 % len(sinks)]
        assert sink.write(Item(index=key, attempt=0, meta=meta), inputs, meta) == meta.num_pairs
        durable += sink.commit()
    sinks[0].finish(range(len(frames)))
    written = msgspec.json.decode(Path(job.output).read_bytes(), type=Written)
    return written, frames, durable


@pytest.mark.parametrize("replicas", [1, 2])
def test_frames_from_memory_reach_the_null_writer_and_padding_does_not(tmp_path, replicas):
    job = stream_of(tmp_path, width=6, height=4, num_pairs=19)
    source = MemoryFrames(pairs=4)
    sinks = [NullWriter(segment_windows=2) for _ in range(replicas)]
    written, frames, durable = written_by(job, source, sinks)

    assert (len(frames), frames[0].shape, source.num_units()) == (5, (5, 36), 19)
    assert [one.items for one in durable] == [(0, 1), (2, 3), (4,)]
    assert [one.counts["frame pairs"] for one in durable] == [8, 8, 3]
    assert all((tmp_path / file).exists() for one in durable for file in one.files)
    assert written.items == (0, 1, 2, 3, 4)
    assert written.num_pairs == (4, 4, 4, 4, 3)
    assert list(written.stamps_ns) == sorted(written.stamps_ns)
    for earlier, later in pairwise(frames):
        assert np.array_equal(earlier[-1], later[0])  # the frame that neighbours share
    assert not np.array_equal(frames[0][0], frames[0][1])
    assert np.array_equal(frames[-1][3], frames[-1][4])  # padding


def test_the_checksum_is_of_all_frames_whoever_takes_them(tmp_path):
    def checksum(*, sinks=1, change=lambda _key, _inputs: None):
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        folder.mkdir()
        job = stream_of(folder, width=6, height=4, num_pairs=19)
        writers = [NullWriter(segment_windows=2) for _ in range(sinks)]
        return written_by(job, MemoryFrames(pairs=4), writers, change=change)[0].checksum

    def one_byte(key, inputs):
        inputs["middle"][2, -1] ^= key == 3

    def padding(key, inputs):
        inputs["middle"][3] ^= key == 4

    assert checksum() == checksum(sinks=2) == checksum(change=padding)
    assert checksum() != checksum(change=one_byte)


def test_block_sums_tell_frames_with_other_bytes_or_in_another_order():
    dice = np.random.default_rng(0)
    frame = dice.integers(0, 256, 3 * BLOCK_BYTES + 5, np.uint8)
    changed = [frame.copy() for _ in range(3)]
    changed[0][BLOCK_BYTES + 7] += 1
    changed[1][-1] += 1
    changed[2][: 2 * BLOCK_BYTES] = np.roll(frame[: 2 * BLOCK_BYTES], BLOCK_BYTES)
    assert np.array_equal(block_sums(frame), block_sums(frame.copy()))
    for other in changed:
        assert not np.array_equal(block_sums(frame), block_sums(other))


def test_a_file_that_describes_no_stream_is_the_users_mistake(tmp_path):
    job = stream_of(tmp_path, width=6, height=4, num_pairs=19)
    (tmp_path / "stream.json").write_text("{}")
    with pytest.raises(UserError, match="describes no stream of frames"):
        MemoryFrames().open(job)
