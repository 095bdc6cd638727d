"""What tools/bench_eden.py runs: pipelines that stay open, each run in its turn."""

from __future__ import annotations

import hashlib
import inspect
import os
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from pathlib import Path
from typing import Literal

import msgspec

from runtime.config import find_config, parse_config
from runtime.config_files import read_config
from runtime.errors import ConfigError
from runtime.pipeline import Pipeline
from runtime.plan import Plan
from runtime.report import Report
from stages.video import ReadVideo, WriteVideo
from tools.bench_files import TimedWriter
from tools.bench_gpus import GpuMemory
from tools.bench_stages import MemoryFrames, NullWriter, Stream, Written, joined

MEMORY = "memory"  # as a source: no file
SinkKind = Literal["null", "file"]
EDEN_STAGES = ("Encode", "Denoise", "Decode")
TRACED = {f"stages.eden:{name}": f"tools.bench_traced:Traced{name}" for name in EDEN_STAGES}

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
    load_s: float  # until the first item was admitted
    checksum: str  # of every frame that came out, or of the file
    gpu_bytes: dict[str, int]  # by UUID: the most that the workers had of it, by NVML
    busiest: str = ""  # the worker that had least time left, and its share: "write/3, 97 %"


@dataclass(slots=True)
class Contender:
    """A configuration and how it is run. The pipeline is open: its workers stay between runs."""

    name: str
    pipeline: Pipeline
    suffix: str = ".json"  # of the output
    pids: set[int] = field(default_factory=set)  # of the processes that work for it
    versions: dict[str, str] = field(default_factory=dict)
    shares: dict[int, float] = field(default_factory=dict)  # by process: of its stages' items

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
        output = folder.with_suffix(self.suffix)
        before = cpu_ns(self.pids)
        with GpuMemory(self.pids - {os.getpid()}) as gpu_memory:
            report = self.pipeline.run(input=source, output=output, run_dir=folder)
        spent_ns = cpu_ns(self.pids) - before
        self._learn(report)
        written = joined(folder)
        return Run(
            ms_a_pair=ms_a_pair(written, leave_out),
            wall_s=report.run_s,
            cpu_s=spent_ns / 1e9,
            load_s=report.load_s,
            checksum=written.checksum if self.suffix == ".json" else _sha256(output),
            gpu_bytes=gpu_memory.peaks(),
            busiest=_busiest(report),
        )

    def plan(self, source: Path, folder: Path) -> Plan:
        """Return how it runs, and in what memory."""
        output = folder.with_suffix(self.suffix)
        return self.pipeline.plan(input=source, output=output, run_dir=folder).plan

    def _learn(self, report: Report) -> None:
        self.pids = {os.getpid(), *(worker.pid for worker in report.workers)}
        self.versions = report.versions
        done = Counter[tuple[str, ...]]()
        for one in report.workers:
            done[one.stages] += one.items
        self.shares = {one.pid: one.items / done[one.stages] for one in report.workers}

    def __enter__(self) -> Contender:
        """Return the contender."""
        return self

    def __exit__(self, *_error: object) -> None:
        """Stop its processes."""
        self.pipeline.close()


def _busiest(report: Report) -> str:
    worker = max(report.workers, key=lambda one: one.busy_s)
    return f"{worker.name}, {worker.busy_s / report.run_s:.0%}" if report.run_s else worker.name


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
    # In the order in which they were taken: replicas of the sink have segments of their own.
    taken = sorted(zip(written.stamps_ns, written.num_pairs, strict=True))
    stamps_ns, done = [stamp for stamp, _ in taken], list(accumulate(pairs for _, pairs in taken))
    inside = [i for i, pairs in enumerate(done) if leave_out <= pairs <= done[-1] - leave_out]
    if len(inside) < 2:
        raise ConfigError(
            f"{done[-1]} pairs, of which the first and the last {leave_out} do not count: fewer "
            "than two windows are left; say more --pairs or a smaller --leave-out"
        )
    first, last = inside[0], inside[-1]
    took_ns = stamps_ns[last] - stamps_ns[first]
    return took_ns / 1e6 / (done[last] - done[first])


def inline_and_processes(overrides: Sequence[str]) -> dict[str, Pipeline]:
    """Return the same two busy stages in this process, and in two workers."""
    config = parse_config(TWO_STAGES, overrides)
    return {"inline": Pipeline(config, inline=True), "processes": Pipeline(config)}


def of_config(
    name: str, source: str, overrides: Sequence[str], *, sink: SinkKind = "null", traced: str = ""
) -> Pipeline:
    """Return the pipeline of a configuration between the ends that are measured.

    Args:
        name: of the configuration, or its path.
        source: `memory`, or anything else for the file reader.
        overrides: as of runpipe.
        sink: "null" writes nothing, "file" is the configuration's, which writes down when.
        traced: "AFTER:ITEMS" to trace the kernels of so many items, see tools/bench_traced.py.

    Raises:
        ConfigError: there is no such configuration, or something is wrong with it.
    """
    path = find_config(name)
    data = read_config(path)
    parse_config(data, path=path)  # as it is: so that its mistakes are told as its own
    data = _between_our_ends(data, source, sink)
    if traced:
        data = _traced(data, traced)
    return Pipeline(parse_config(data, overrides, path=path.absolute()))


def num_gpus(name: str) -> int:
    """Return how many GPUs a configuration asks for.

    Raises:
        ConfigError: there is no such configuration, or something is wrong with it.
    """
    path = find_config(name)
    config = parse_config(read_config(path), path=path)
    return len({gpu for stage in config.stages.values() for gpu in stage.gpus})


def _between_our_ends(data: Mapping[str, object], source: str, sink: SinkKind) -> dict[str, object]:
    """Return the configuration with a sink that keeps time, and unless it reads a file, our source.

    The sink's replicas stay; the file writer has the same keywords as the configuration's.
    """
    ends: list[type] = [
        MemoryFrames if source == MEMORY else ReadVideo,
        NullWriter if sink == "null" else TimedWriter,
    ]
    stages = _mapping(data["stages"])
    first, *_others, last = stages
    is_file = sink == "file"
    kept = {
        key: value
        for key, value in _mapping(stages[last]).items()
        if key == "replicas" or (is_file and key == "with")
    }
    replaced = {last: {**kept, "use": _use(ends[1])}}
    if source == MEMORY:
        replaced[first] = {"use": _use(MemoryFrames)}
    files_only = _keywords(ReadVideo, WriteVideo) - _keywords(*ends)
    video = {k: v for k, v in _mapping(data.get("video")).items() if k not in files_only}
    return {**data, "stages": {**stages, **replaced}, "video": video}


def _traced(data: Mapping[str, object], which: str) -> dict[str, object]:
    """Return the configuration with the first EDEN stage of each worker as one that traces."""
    stages, groups = _mapping(data["stages"]), data.get("groups", [])
    assert isinstance(groups, list), "checked"
    eden = [name for name in stages if _mapping(stages[name])["use"] in TRACED]
    behind = {name for group in groups for name in sorted(group, key=list(stages).index)[1:]}
    replaced = {}
    for name in (name for name in eden if name not in behind):
        stage = _mapping(stages[name])
        options = {**_mapping(stage.get("with")), "traced": which}
        replaced[name] = {**stage, "use": TRACED[str(stage["use"])], "with": options}
    return {**data, "stages": {**stages, **replaced}}


def _use(stage: type) -> str:
    return f"{stage.__module__}:{stage.__name__}"


def _keywords(*stages: type) -> set[str]:
    return {name for stage in stages for name in inspect.signature(stage).parameters}


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _mapping(value: object) -> Mapping[str, object]:
    return value if isinstance(value, dict) else {}


def source_file(source: str, folder: Path, stream: Stream) -> Path:
    """Return the input of all runs: the video, or a description of frames to make up."""
    if source != MEMORY:
        return Path(source)
    path = folder / "stream.json"
    path.write_bytes(msgspec.json.encode(stream))
    return path
