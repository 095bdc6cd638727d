"""The data path on GPUs, with small stages: wherever they lie, the same numbers, and no waiting."""

import pytest

from runtime.config import parse_config
from runtime.errors import PlanError, RunIncomplete, WorkerDied
from runtime.host import probe_host
from runtime.pipeline import Pipeline
from runtime.report import load_report

GPUS = probe_host().gpus
WIDTH = 2**18
NUM_ITEMS = 60
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

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not GPUS, reason="needs a GPU")]


def config(placement="around", **changes):
    *gpus, groups, _transports = PLACEMENTS[placement]
    stages = {
        name: {**stage, "gpus": which, **changes.pop(name, {})}
        for (name, stage), which in zip(STAGES.items(), gpus, strict=True)
    }
    ends = {
        "read": {"use": "tests.fakes:Numbers", "with": {"width": changes.pop("width", WIDTH)}},
        "write": {"use": "tests.gpu_fakes:Ends", "with": {"reads": "x c"}},
    }
    named = {"read": ends["read"], **stages, "write": ends["write"]}
    return parse_config({"pipeline": "fake", "stages": named, "groups": groups, "run": changes})


def run(pipeline, source, folder):
    folder.mkdir(exist_ok=True)
    return pipeline.run(input=source, output=folder / "out", run_dir=folder / "run")


def line(item, width=WIDTH):
    """What the sink writes: x, then (2 x + 1) + (4 x + 3)."""
    ends = [(x, 6 * x + 4) for x in (item, item + width - 1, item + (width - 1) / 2)]
    told = (" ".join(f"{v:g}" for v in values) for values in zip(*ends, strict=True))
    return f"{item}|item {item}|{';'.join(told)}"


def lines(folder):
    return (folder / "out").read_text().splitlines()


@pytest.mark.parametrize("placement", PLACEMENTS)
def test_every_placement_gives_the_same_numbers(placement, numbers, tmp_path):
    with Pipeline(config(placement)) as pipeline:
        report = run(pipeline, numbers(NUM_ITEMS), tmp_path / "p")
    assert lines(tmp_path / "p") == [line(item) for item in range(NUM_ITEMS)]
    on_gpu = {worker.name for worker in report.workers if worker.device != "cpu"}
    between = {
        link.transport
        for link in report.links
        if {link.sender, link.receiver} <= on_gpu and link.sender != link.receiver and link.bytes
    }
    wanted = PLACEMENTS[placement][-1]
    if len(GPUS) == 1 and wanted:
        wanted = {"cuda-view"}
    assert between == wanted
    to_host = {link.transport for link in report.links if link.receiver == "write/0" and link.bytes}
    assert to_host == {"host"}


def test_host_memory_gives_the_same_numbers_where_it_is_required(numbers, tmp_path):
    with Pipeline(config("apart on two", require="host")) as pipeline:
        report = run(pipeline, numbers(NUM_ITEMS), tmp_path / "p")
    assert lines(tmp_path / "p") == [line(item) for item in range(NUM_ITEMS)]
    assert {link.transport for link in report.links} <= {"host", "local"}


def test_memory_that_grows_in_segments_is_none_of_our_pools(numbers, tmp_path, monkeypatch):
    monkeypatch.setenv("PYTORCH_CUDA_ALLOC_CONF", "expandable_segments:True")
    with Pipeline(config("apart on two")) as pipeline:
        run(pipeline, numbers(NUM_ITEMS), tmp_path / "p")
    assert lines(tmp_path / "p") == [line(item) for item in range(NUM_ITEMS)]


def test_jobs_of_other_sizes_have_pools_of_their_own(numbers, tmp_path):
    with Pipeline(config("around")) as pipeline:
        for count in (40, 3, 25):
            run(pipeline, numbers(count), tmp_path / str(count))
            assert lines(tmp_path / str(count)) == [line(item) for item in range(count)]


def test_an_item_that_raises_is_left_out_and_no_other(numbers, tmp_path):
    raises = {
        "use": "tests.gpu_fakes:RaisesAt",
        "with": {"reads": "a", "writes": "b", "poison": 7},
    }
    with (
        Pipeline(config("around", second=raises)) as pipeline,
        pytest.raises(RunIncomplete, match="frame pair has 3 frames"),
    ):
        run(pipeline, numbers(NUM_ITEMS), tmp_path / "p")
    for item, told in enumerate(lines(tmp_path / "p")):
        assert ("frame pair has 3 frames" in told) == (item == 7)
        assert (told == line(item)) == (item != 7)


@pytest.mark.parametrize("stage", ["first", "second", "third"])
def test_a_killed_worker_ends_the_run_and_holds_nobody_up(numbers, tmp_path, stage):
    fakes = {name: dict(one["with"]) for name, one in STAGES.items()}
    killed = {"use": "tests.gpu_fakes:KilledAt", "with": {**fakes[stage], "poison": 9}}
    if stage == "third":
        killed["with"]["reads"] = "b"
    with (
        Pipeline(config("apart on two", hang_s=20.0, **{stage: killed})) as pipeline,
        pytest.raises(WorkerDied, match="SIGKILL"),
    ):
        run(pipeline, numbers(NUM_ITEMS), tmp_path / "p")


def test_a_gpu_that_fails_ends_its_worker_with_the_reason(numbers, tmp_path):
    breaks = {
        "use": "tests.gpu_fakes:BreaksTheGpuAt",
        "with": {"reads": "a", "writes": "b", "poison": 9},
    }
    with (
        Pipeline(config("around", hang_s=20.0, second=breaks)) as pipeline,
        pytest.raises(WorkerDied),
    ):
        run(pipeline, numbers(NUM_ITEMS), tmp_path / "p")
    log = next((tmp_path / "p/run").rglob("*second*.log")).read_text()
    assert "GpuLost" in log
    assert load_report(tmp_path / "p/run/report.json").status == "failed"


def test_what_cannot_be_had_is_refused_where_it_is_required(numbers, tmp_path, monkeypatch):
    monkeypatch.setattr("runtime.host.probe_peers", lambda _gpus: frozenset())
    if len(GPUS) < 2:
        pytest.skip("one GPU is always its own peer")
    with (
        Pipeline(config("around", require="cuda")) as pipeline,
        pytest.raises(PlanError, match="host memory is refused by `require: cuda`"),
    ):
        run(pipeline, numbers(4), tmp_path / "p")
