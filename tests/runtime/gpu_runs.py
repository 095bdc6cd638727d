"""Runs of three small stages on GPUs, placed in all ways, and the numbers that they must give."""

import pytest

from runtime.config import parse_config
from runtime.host import probe_host

HAS_GPUS = pytest.mark.skipif(not probe_host().gpus, reason="needs a GPU")
REAL = pytest.param("real", marks=[pytest.mark.gpu, HAS_GPUS])  # of the fixture `gpus`
NUM_ITEMS = 30
STAGES = {
    "first": {"use": "tests.gpu_fakes:Double", "with": {"writes": "a"}},
    "second": {"use": "tests.gpu_fakes:Double", "with": {"reads": "a", "writes": "b"}},
    "third": {"use": "tests.gpu_fakes:Plus", "with": {"reads": "a b", "writes": "c"}},
}
PLACEMENTS = {  # GPUs of the three stages, groups, and the transports between workers
    "one worker": ([0], [0], [0], [["first", "second", "third"]], set()),
    "one GPU, apart": ([0], [0], [0], [], {"cuda-view"}),
    "two GPUs": ([0], [1], [1], [["second", "third"]], {"cuda-copy"}),
    "around": ([0], [1], [0], [["first", "third"]], {"cuda-copy"}),
    "apart on two": ([0], [1], [0], [], {"cuda-copy", "cuda-view"}),
    "replicas": ([0, 1], [0, 1], [0, 1], [["first", "second", "third"]], set()),
    "replicas of one": ([0], [0, 1], [0], [["first", "third"]], {"cuda-copy", "cuda-view"}),
}


def config(placement, width, *, second=None, third=None, first=None, **run):
    """Return the configuration of a placement; keywords are other stages, or of `run:`."""
    *gpus, groups, _transports = PLACEMENTS[placement]
    other = {"first": first, "second": second, "third": third}
    stages = {
        name: {**(other[name] or stage), "gpus": which}
        for (name, stage), which in zip(STAGES.items(), gpus, strict=True)
    }
    named = {
        "read": {"use": "tests.fakes:Numbers", "with": {"width": width}},
        **stages,
        "write": {"use": "tests.gpu_fakes:Ends", "with": {"reads": "x c"}},
    }
    return parse_config({"pipeline": "fake", "stages": named, "groups": groups, "run": run})


def at(poison, stage, use, **more):
    """Return `stage` with another class, which does something at item `poison`."""
    options = {**STAGES[stage]["with"], "poison": poison, **more}
    if stage == "third":
        options["reads"] = "b"
    return {"use": f"tests.gpu_fakes:{use}", "with": options}


def run(pipeline, source, folder):
    folder.mkdir(exist_ok=True)
    return pipeline.run(input=source, output=folder / "out", run_dir=folder / "run")


def lines(folder):
    return (folder / "out").read_text().splitlines()


def line(item, width):
    """What the sink writes: x, then (2 x + 1) + (4 x + 3)."""
    ends = [(x, 6 * x + 4) for x in (item, item + width - 1, item + (width - 1) / 2)]
    told = (" ".join(f"{v:g}" for v in values) for values in zip(*ends, strict=True))
    return f"{item}|item {item}|{';'.join(told)}"


def expected(width, count=NUM_ITEMS):
    return [line(item, width) for item in range(count)]


def log_of(folder, worker):
    (path,) = (folder / "run").rglob(f"*{worker}*.log")
    return path.read_text()
