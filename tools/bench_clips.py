"""What tools/bench_eden.py --gpu measures with video files: the ends alone, and a whole start."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from runtime.config import find_config, parse_config
from runtime.config_files import read_config
from runtime.errors import RunpipeError
from runtime.pipeline import Pipeline
from stages.video import ReadVideo
from tools.bench_files import HeldVideo, TimedWriter
from tools.bench_runs import Contender
from tools.bench_stages import MemoryPairs, NullReader, NullWriter

PROJECT = Path(__file__).resolve().parent.parent
CORES = 16  # of the targets
START_S = 300.0  # more than any start may take
ENDS: dict[str, tuple[type, type]] = {
    "ends": (MemoryPairs, NullWriter),
    "read": (ReadVideo, NullReader),
    "write": (HeldVideo, TimedWriter),
}
# Where libraries keep what they have compiled: a first start shall find nothing there.
CACHES = ("XDG_CACHE_HOME", "TRITON_CACHE_DIR", "TORCHINDUCTOR_CACHE_DIR", "CUDA_CACHE_PATH")


@contextmanager
def at_most_cores(count: int) -> Iterator[None]:
    """Leave this process, and those that it starts, `count` of its cores.

    Whole cores as long as there are some: the second thread of one does much less.
    """
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, apart(allowed)[:count])
    try:
        yield
    finally:
        os.sched_setaffinity(0, allowed)


def apart(cpus: Iterable[int], root: Path = Path("/")) -> list[int]:
    """Return the processors so that the first threads of all cores come before the others."""
    seen: dict[str, int] = {}
    turns = []
    for cpu in sorted(cpus):
        path = root / f"sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list"
        core = path.read_text().strip() if path.exists() else str(cpu)
        seen[core] = seen.get(core, 0) + 1
        turns.append((seen[core], cpu))
    return [cpu for _turn, cpu in sorted(turns)]


def end_alone(kind: str, config: str, overrides: Sequence[str]) -> Contender:
    """Return a pipeline of a source and a sink, no model between, as the configuration has them.

    Args:
        kind: "ends" of a benchmark without files, or the "read" or "write" of one with files.
        config: whose replicas and keywords they have.
        overrides: as of runpipe, but for those of models.
    """
    path = find_config(config)
    wanted = parse_config(read_config(path), path=path)
    source, sink = ENDS[kind]
    names = list(wanted.stages)
    of_source, of_sink = wanted.stages[names[0]], wanted.stages[names[-1]]
    known = {"pairs", "segment_windows"}
    if kind == "read":
        known |= {"threads"}
    if kind == "write":
        known |= {"threads", "codec", "crf", "preset"}
    data: dict[str, object] = {
        "pipeline": wanted.pipeline,
        "video": {k: v for k, v in wanted.video.items() if k in known},
        "stages": {
            names[0]: {"use": f"{source.__module__}:{source.__name__}"}
            | ({"with": dict(of_source.options)} if kind == "read" else {}),
            names[-1]: {
                "use": f"{sink.__module__}:{sink.__name__}",
                "replicas": of_sink.num_replicas,
            }
            | ({"with": dict(of_sink.options)} if kind == "write" else {}),
        },
    }
    ours = [one for one in overrides if one.startswith("video.")]
    pipeline = Pipeline(parse_config(data, ours, path=path.absolute()))
    return Contender(kind, pipeline, suffix=".mp4" if kind == "write" else ".json")


def start_s(config: str, clip: Path, output: Path, overrides: Sequence[str], caches: Path) -> float:
    """Return how long the command line takes, from its start to its end, which closes the file.

    Args:
        config: what is run.
        clip: the input.
        output: is written.
        overrides: `--set` of these.
        caches: folder of all compilers' caches; an empty one makes it a first start.

    Raises:
        RunpipeError: it failed.
    """
    command = [PROJECT / "bin" / "runpipe", "--config", config, "--input", clip, "--quiet"]
    command += ["--output", output, "--run-dir", output.with_suffix(".run")]
    command += [word for one in overrides for word in ("--set", one)]
    words = list(map(str, command))
    began = time.monotonic()
    done = subprocess.run(
        words, env=_environment(caches), capture_output=True, text=True, timeout=START_S
    )
    took_s = time.monotonic() - began
    if done.returncode:
        raise RunpipeError(f"{' '.join(words)}: exit {done.returncode}: {done.stderr.strip()}")
    return took_s


def _environment(caches: Path) -> Mapping[str, str]:
    return {**os.environ, **{name: str(caches / name.lower()) for name in CACHES}}
