"""The data path on GPUs, with small stages: wherever they lie, the same numbers, and no waiting."""

from dataclasses import replace

import pytest

import runtime.pipeline
from runtime.errors import PlanError, RunIncomplete
from runtime.pipeline import Pipeline
from runtime.report import load_report
from tests.runtime.gpu_runs import (
    NUM_ITEMS,
    PLACEMENTS,
    REAL,
    at,
    config,
    expected,
    line,
    lines,
    log_of,
    run,
)

AT_NIGHT = pytest.mark.nightly  # the one in the middle stands for the others
STAGES = [pytest.param("first", marks=AT_NIGHT), "second", pytest.param("third", marks=AT_NIGHT)]


def transports(report, *, to=None):
    """Return those between the workers on GPUs, or those to a worker, that something went by."""
    on_gpu = {worker.name for worker in report.workers if worker.device != "cpu"}
    return {
        link.transport
        for link in report.links
        if link.bytes and link.sender != link.receiver
        if (link.receiver == to if to else {link.sender, link.receiver} <= on_gpu)
    }


@pytest.mark.parametrize("placement", PLACEMENTS)
def test_every_placement_gives_the_same_numbers(gpus, placement, numbers, tmp_path):
    with Pipeline(config(placement, gpus.width, require="cuda")) as pipeline:
        report = run(pipeline, numbers(NUM_ITEMS), tmp_path / "p")
    assert lines(tmp_path / "p") == expected(gpus.width)
    wanted = PLACEMENTS[placement][-1]
    assert transports(report) == ({"cuda-view"} if wanted and gpus.num == 1 else wanted)
    assert transports(report, to="write/0") == {"host"}


def test_host_memory_gives_the_same_numbers_where_it_is_required(gpus, numbers, tmp_path):
    with Pipeline(config("apart on two", gpus.width, require="host")) as pipeline:
        report = run(pipeline, numbers(NUM_ITEMS), tmp_path / "p")
    assert lines(tmp_path / "p") == expected(gpus.width)
    assert {link.transport for link in report.links} <= {"host", "local"}


@pytest.mark.parametrize("gpus", [REAL], indirect=True)
def test_memory_that_grows_in_segments_is_none_of_our_pools(gpus, numbers, tmp_path, monkeypatch):
    monkeypatch.setenv("PYTORCH_CUDA_ALLOC_CONF", "expandable_segments:True")
    with Pipeline(config("apart on two", gpus.width)) as pipeline:
        run(pipeline, numbers(NUM_ITEMS), tmp_path / "p")
    assert lines(tmp_path / "p") == expected(gpus.width)


def test_jobs_of_other_sizes_have_pools_of_their_own(gpus, numbers, tmp_path):
    with Pipeline(config("around", gpus.width)) as pipeline:
        for count in (40, 3, 25):
            run(pipeline, numbers(count), tmp_path / str(count))
            assert lines(tmp_path / str(count)) == expected(gpus.width, count)


@pytest.mark.parametrize("stage", STAGES)
def test_an_item_that_raises_is_left_out_and_no_other(gpus, numbers, tmp_path, stage):
    raises = {stage: at(7, stage, "RaisesAt")}
    with (
        Pipeline(config("around", gpus.width, **raises)) as pipeline,
        pytest.raises(RunIncomplete, match="frame pair has 3 frames"),
    ):
        run(pipeline, numbers(NUM_ITEMS), tmp_path / "p")
    written = lines(tmp_path / "p")
    assert f"{stage}: ValueError: frame pair has 3 frames" in written[7]
    if stage != "third":  # which is another sum, then
        assert [w for w in written if w != line(int(w.split("|")[0]), gpus.width)] == [written[7]]


@pytest.mark.parametrize("stage", STAGES)
def test_an_item_that_kills_is_left_out_and_holds_nobody_up(gpus, numbers, tmp_path, stage):
    killed = {stage: at(9, stage, "KilledAt")}
    with (
        Pipeline(config("apart on two", gpus.width, hang_s=20.0, **killed)) as pipeline,
        pytest.raises(RunIncomplete, match=r"on item 9: it killed its worker twice.* SIGKILL"),
    ):
        run(pipeline, numbers(NUM_ITEMS), tmp_path / "p")
    written = lines(tmp_path / "p")
    assert [number for number, one in enumerate(written) if "killed" in one] == [9]
    if stage != "third":  # which is another sum, then
        assert [w for w in written if w != line(int(w.split("|")[0]), gpus.width)] == [written[9]]


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["first", "second"])
@pytest.mark.parametrize("placement", ["around", "apart on two", "replicas of one"])
def test_a_worker_that_dies_once_comes_back_with_its_pools(
    gpus, numbers, tmp_path, placement, stage
):
    """What lay in its GPU pool is gone, and done again; others hold what lies elsewhere."""
    dies = at(9, stage, "KilledOnceAt", marks=str(tmp_path))
    with Pipeline(config(placement, gpus.width, hang_s=20.0, **{stage: dies})) as pipeline:
        report = run(pipeline, numbers(NUM_ITEMS), tmp_path / "p")
        second = run(pipeline, numbers(NUM_ITEMS), tmp_path / "next")
    assert lines(tmp_path / "p") == lines(tmp_path / "next") == expected(gpus.width)
    restarts = sum(worker.restarts for worker in report.workers)
    may_do_without = placement == "replicas of one"  # the other one does what is left
    assert restarts == 1 or (may_do_without and restarts == 0)
    assert report.items.replayed > 0
    assert transports(report) == transports(second)


def test_a_gpu_that_fails_ends_its_worker_with_the_reason(gpus, numbers, tmp_path):
    breaks = at(9, "second", "BreaksTheGpuAt")
    with (
        Pipeline(config("around", gpus.width, hang_s=20.0, second=breaks)) as pipeline,
        pytest.raises(RunIncomplete, match=r"on item 9: it killed .* second/0 died \(exit code 1"),
    ):
        run(pipeline, numbers(NUM_ITEMS), tmp_path / "p")
    log = log_of(tmp_path / "p", "second")
    assert log.rindex("left open job") < log.rindex("GpuLost"), "what ends it comes last"
    assert load_report(tmp_path / "p/run/report.json").status == "failed"


def test_what_cannot_be_had_is_refused_where_it_is_required(gpus, numbers, tmp_path, monkeypatch):
    if gpus.num < 2:
        pytest.skip("one GPU is always its own peer")
    probe = runtime.pipeline.probe_host
    monkeypatch.setattr(runtime.pipeline, "probe_host", lambda: replace(probe(), peers=frozenset()))
    with (
        Pipeline(config("around", gpus.width, require="cuda")) as pipeline,
        pytest.raises(
            PlanError, match=r"`a` of first .* gets to second, third through host memory"
        ),
    ):
        run(pipeline, numbers(4), tmp_path / "p")
