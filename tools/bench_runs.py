"""What tools/bench_eden.py runs: pipelines that stay open, each run in its turn."""

from __future__ import annotations

import inspect
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from pathlib import Path

import msgspec

from runtime.config import find_config, parse_config
from runtime.config_files import read_config
from runtime.errors import ConfigError
from runtime.pipeline import Pipeline
from runtime.report import Report
from stages.video import ReadVideo, WriteVideo
from tools.bench_stages import MemoryFrames, NullWriter, Stream, Written

MEMORY = "memory"  # as a source: no file

# Encoder and transformer cost about as much as the decoder: two stages, both busy.
TWO_STAGES: dict[str, object] = {
    "pipeline": "interpolate",
    "model": {"weights": "random:0:small", "dtype": "float32"},
    "video": {"pairs": 2, "segment_windows": 4},
    "stages": {
        "read": {"use": "tools.bench_stages:MemoryFrames"},
        "encode": {"use": "stages.eden:Encode"},
        "denoise": {"use": "stages.eden:Denoise"},
        "decode": {"use": "stages.eden:Decode"},
        "write": {"use": "tools.bench_stages:NullWriter"},
    },
    "groups": [["read", "encode", "denoise"], ["decode", "write"]],
    "run": {"threads": 1},  # of a stage, inline and in a worker alike
}


@dataclass(frozen=True, slots=True)
class Run:
    """One repetition of one contender."""

    ms_a_pair: float  # in the middle of the stream
    wall_s: float  # from the first item's admission to the end of the job
    cpu_s: float  # user and system, of this process and the workers, of the whole job
    sha256: str  # of every frame that came out


@dataclass(slots=True)
class Contender:
    """A configuration and how it is run. The pipeline is open: its workers stay between runs."""

    name: str
    pipeline: Pipeline
    pids: set[int] = field(default_factory=set)  # of the processes that work for it
    versions: dict[str, str] = field(default_factory=dict)

    def run(self, source: Path, folder: Path, *, leave_out: int) -> Run:
        """Run a job in a new folder.

        Args:
            source: the input: a `Stream`, or a video.
            folder: to be made.
            leave_out: so many pairs at both ends do not count in `ms_a_pair`.

        Raises:
            ConfigError: it cannot run, or the stream is too short.
            RunpipeError: the run failed.
        """
        output = folder.with_suffix(".json")
        before = cpu_ns(self.pids)
        report = self.pipeline.run(input=source, output=output, run_dir=folder)
        spent_ns = cpu_ns(self.pids) - before
        self._learn(report)
        written = msgspec.json.decode(output.read_bytes(), type=Written)
        return Run(
            ms_a_pair=ms_a_pair(written, leave_out),
            wall_s=report.run_s,
            cpu_s=spent_ns / 1e9,
            sha256=written.sha256,
        )

    def _learn(self, report: Report) -> None:
        self.pids = {os.getpid(), *(worker.pid for worker in report.workers)}
        self.versions = report.versions


def cpu_ns(pids: set[int]) -> int:
    """Return the user and system time that living processes have taken, all their threads.

    Read from their CPU clocks (see clock_getcpuclockid(3)): /proc/PID/stat counts in 10 ms.
    """
    return sum(time.clock_gettime_ns((~pid << 3) | 2) for pid in pids)


def ms_a_pair(written: Written, leave_out: int) -> float:
    """Return the time of a pair between the first and the last `leave_out` pairs.

    Raises:
        ConfigError: fewer than two items are left.
    """
    done = list(accumulate(written.num_pairs))
    inside = [i for i, pairs in enumerate(done) if leave_out <= pairs <= done[-1] - leave_out]
    if len(inside) < 2:
        raise ConfigError(
            f"{done[-1]} pairs, of which the first and the last {leave_out} do not count: fewer "
            "than two windows are left; say more --pairs or a smaller --leave-out"
        )
    first, last = inside[0], inside[-1]
    took_ns = written.stamps_ns[last] - written.stamps_ns[first]
    return took_ns / 1e6 / (done[last] - done[first])


def inline_and_processes(overrides: Sequence[str]) -> dict[str, Pipeline]:
    """Return the same two busy stages in this process, and in two workers."""
    config = parse_config(TWO_STAGES, overrides)
    return {"inline": Pipeline(config, inline=True), "processes": Pipeline(config)}


def of_config(name: str, source: str, overrides: Sequence[str]) -> Pipeline:
    """Return the pipeline of a configuration between the ends that are measured.

    Raises:
        ConfigError: there is no such configuration, or something is wrong with it.
    """
    path = find_config(name)
    data = read_config(path)
    parse_config(data, path=path)  # as it is: so that its mistakes are told as its own
    return Pipeline(parse_config(_between_our_ends(data, source), overrides, path=path.absolute()))


def _between_our_ends(data: Mapping[str, object], source: str) -> dict[str, object]:
    """Return the configuration with a null writer, and unless it reads a file, with our source."""
    ends: list[type] = [MemoryFrames if source == MEMORY else ReadVideo, NullWriter]
    stages = data["stages"]
    assert isinstance(stages, dict), "checked"
    first, *_others, last = stages
    replaced = {last: {"use": _use(NullWriter)}}
    if source == MEMORY:
        replaced[first] = {"use": _use(MemoryFrames)}
    files_only = _keywords(ReadVideo, WriteVideo) - _keywords(*ends)
    video = {k: v for k, v in _mapping(data.get("video")).items() if k not in files_only}
    return {**data, "stages": {**stages, **replaced}, "video": video}


def _use(stage: type) -> str:
    return f"{stage.__module__}:{stage.__name__}"


def _keywords(*stages: type) -> set[str]:
    return {name for stage in stages for name in inspect.signature(stage).parameters}


def _mapping(value: object) -> Mapping[str, object]:
    return value if isinstance(value, dict) else {}


def source_file(source: str, folder: Path, stream: Stream) -> Path:
    """Return the input of all runs: the video, or a description of frames to make up."""
    if source != MEMORY:
        return Path(source)
    path = folder / "stream.json"
    path.write_bytes(msgspec.json.encode(stream))
    return path
