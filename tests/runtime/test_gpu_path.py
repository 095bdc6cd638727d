"""The data path where GPUs refuse something, with a fake driver in real worker processes."""

import sys

import pytest
import zmq

from ipc.channel import Inbox
from runtime.errors import PlanError, StageFailed
from runtime.gpu_side import GpuSide
from runtime.path import Identity
from runtime.pipeline import Pipeline
from tests.runtime.gpu_runs import NUM_ITEMS, config, expected, lines, log_of, run

CANNOT_READ = "cannot read the GPU memory of first/0, and takes host memory: "


def transports(report):
    return {link.transport for link in report.links}


@pytest.fixture
def without_driver(fake_gpus, tmp_path, monkeypatch, project):
    """Have the workers find no package cuda-bindings."""
    package = tmp_path / "none/cuda/__init__.py"
    package.parent.mkdir(parents=True)
    package.write_text("raise ImportError('not installed')")
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}/none:{project}/tests/in_workers")
    return fake_gpus


def test_gpus_that_do_not_open_each_others_pools_use_host_memory(
    fake_gpus, numbers, tmp_path, monkeypatch
):
    monkeypatch.setenv("FAKE_CUDA_REFUSES", "cuIpcOpenMemHandle")
    with Pipeline(config("apart on two", fake_gpus.width)) as pipeline:
        report = run(pipeline, numbers(NUM_ITEMS), tmp_path / "p")
    assert lines(tmp_path / "p") == expected(fake_gpus.width)
    assert transports(report) <= {"host", "local"}
    told = [warning for warning in report.warnings if "cuIpcOpenMemHandle" in warning]
    assert {warning.partition(" cannot")[0] for warning in told} == {"second/0", "third/0"}
    assert any(CANNOT_READ in warning for warning in told)


def test_gpus_that_do_not_share_their_pools_use_host_memory(
    fake_gpus, numbers, tmp_path, monkeypatch
):
    monkeypatch.setenv("FAKE_CUDA_REFUSES", "cuIpcGetMemHandle")
    with Pipeline(config("around", fake_gpus.width)) as pipeline:
        report = run(pipeline, numbers(NUM_ITEMS), tmp_path / "p")
    assert lines(tmp_path / "p") == expected(fake_gpus.width)
    assert transports(report) <= {"host", "local"}


@pytest.mark.parametrize(
    ("asked", "why"), [({"strict": True}, "--strict"), ({"require": "cuda"}, "`require: cuda`")]
)
def test_a_fallback_is_refused_if_the_user_says_so(
    fake_gpus, numbers, tmp_path, monkeypatch, asked, why
):
    monkeypatch.setenv("FAKE_CUDA_REFUSES", "cuIpcOpenMemHandle")
    with (
        Pipeline(config("two GPUs", fake_gpus.width, **asked)) as pipeline,
        pytest.raises(PlanError, match=why),
    ):
        run(pipeline, numbers(4), tmp_path / "p")


def test_a_dry_run_tells_what_earlier_runs_have_learned(fake_gpus, numbers, tmp_path, monkeypatch):
    monkeypatch.setenv("FAKE_CUDA_REFUSES", "cuIpcOpenMemHandle")
    with Pipeline(config("two GPUs", fake_gpus.width)) as pipeline:
        run(pipeline, numbers(4), tmp_path / "p")
        plan = pipeline.plan(
            input=numbers(4), output=tmp_path / "other", run_dir=tmp_path / "p"
        ).plan
    assert any("second+third/0 " + CANNOT_READ in warning for warning in plan.warnings)
    assert {pool.memory for pool in plan.pools if pool.owner == "first/0"} == {"host"}


def test_a_gpu_that_does_not_pin_what_is_read_only_pins_it_writable(
    fake_gpus, numbers, tmp_path, monkeypatch
):
    monkeypatch.setenv("FAKE_CUDA_REFUSES", "read-only pinning")
    with Pipeline(config("two GPUs", fake_gpus.width), verbosity=1) as pipeline:
        run(pipeline, numbers(4), tmp_path / "p")
    assert lines(tmp_path / "p") == expected(fake_gpus.width, 4)
    assert "mapped writable, to be pinned" in log_of(tmp_path / "p", "first")


def test_a_gpu_that_pins_nothing_copies_all_the_same(fake_gpus, numbers, tmp_path, monkeypatch):
    monkeypatch.setenv("FAKE_CUDA_REFUSES", "cuMemHostRegister")
    with Pipeline(config("two GPUs", fake_gpus.width)) as pipeline:
        for name in ("p", "q"):
            run(pipeline, numbers(4), tmp_path / name)
            assert lines(tmp_path / name) == expected(fake_gpus.width, 4)
    told = log_of(tmp_path / "p", "second")
    assert told.count("unpinned pool=") == 2, "one warning a job"
    assert "cuMemHostRegister" in told


@pytest.mark.parametrize("placement", ["one worker", "two GPUs"])
def test_without_cuda_bindings_stages_run_all_the_same(
    without_driver, numbers, tmp_path, placement
):
    with Pipeline(config(placement, without_driver.width)) as pipeline:
        report = run(pipeline, numbers(NUM_ITEMS), tmp_path / "p")
    assert lines(tmp_path / "p") == expected(without_driver.width)
    assert transports(report) <= {"host", "local"}
    assert "no shared GPU memory: the package cuda-bindings" in log_of(tmp_path / "p", "first")
    assert any("cuda-bindings cannot be imported" in warning for warning in report.warnings)


def test_a_pool_for_which_there_is_no_memory_is_told_with_numbers(fake_gpus, numbers, tmp_path):
    with (
        Pipeline(config("two GPUs", 2**22)) as pipeline,
        pytest.raises(PlanError, match=r"first/0: no pool on cuda:0: .* refused \d+ MiB, 64 of"),
    ):
        run(pipeline, numbers(NUM_ITEMS), tmp_path / "p")


@pytest.mark.nightly  # tests/runtime/test_gpu_queue.py has it without processes
def test_staging_for_which_there_is_no_memory_is_told_with_numbers(fake_gpus, numbers, tmp_path):
    with (
        Pipeline(config("apart on two", 2**22, require="host")) as pipeline,
        pytest.raises(StageFailed, match=r"pool \w+\.staging: .* refused (96|144) MiB, 64 of"),
    ):
        run(pipeline, numbers(2), tmp_path / "p")


def test_a_worker_that_finds_no_driver_looks_for_it_once(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "cuda.bindings.driver", None)
    monkeypatch.setattr(sys, "setswitchinterval", lambda _interval: None)
    with zmq.Context() as zmq_context, Inbox(zmq_context, f"ipc://{tmp_path}/i") as inbox:
        side = GpuSide(Identity(sender="w/0", incarnation=0), zmq_context, inbox)
        side.open()
        side.open()
        assert side.queue() is None
        side.close()
