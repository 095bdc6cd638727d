"""Before the first item: GPUs that hang, are lost, refuse, or are still full of the last job."""

from dataclasses import replace

import pytest

from runtime import reach
from runtime.errors import PlanError, StageFailed
from runtime.host import probe_host
from runtime.pipeline import Pipeline
from tests.runtime.conftest import fake_host
from tests.runtime.gpu_runs import NUM_ITEMS, config, expected, lines, run
from tests.runtime.test_links import DRIVER
from tests.runtime.test_trace_of_run import Trace

READER, WRITER, TRACK = "second+third/0", "first/0", "first/0 cuda:0"  # of "two GPUs"


@pytest.fixture
def faulty(fake_gpus, monkeypatch, tmp_path, project):
    """Return a function that gives the workers' driver another method."""

    def make(name, what):
        package, pids = tmp_path / "driver/cuda/bindings", tmp_path / "pids"
        package.mkdir(parents=True)
        pids.mkdir()
        (package / "__init__.py").touch()
        method = f"    @function(needs_context=True)\n    def {name}(self, *args):\n        {what}"
        (package / "driver.py").write_text(DRIVER.format(folder=str(pids), method=method))
        monkeypatch.setenv("PYTHONPATH", f"{tmp_path}/driver:{project}/tests/in_workers")
        return fake_gpus

    return make


@pytest.mark.parametrize(
    ("call", "told"),
    [
        (
            "cuIpcOpenMemHandle",
            rf"trying whether {READER} can read the GPU memory of {WRITER} takes more than 0\.5 s; "
            "`run.require: host` does without, `runpipe doctor` shows",
        ),
        (
            "cuMemAlloc",
            rf"{WRITER}: making a pool on its GPU takes more than 0\.5 s; `runpipe doctor` shows",
        ),
    ],
)
def test_a_driver_that_hangs_is_not_waited_for(faulty, numbers, tmp_path, monkeypatch, call, told):
    """Its worker's heartbeats go on."""
    monkeypatch.setattr(reach, "ANSWER_S", 0.5)
    gpus = faulty(call, "hang()")
    with (
        Pipeline(config("two GPUs", gpus.width)) as pipeline,
        pytest.raises(PlanError, match=told.replace("+", r"\+")),
    ):
        run(pipeline, numbers(4), tmp_path / "p")


@pytest.mark.parametrize("call", ["cuIpcOpenMemHandle", "cuIpcGetMemHandle"])
def test_a_gpu_that_is_lost_while_it_is_tried_is_no_gpu_that_shares_nothing(
    faulty, numbers, tmp_path, call
):
    gpus = faulty(call, "raise Refused('ILLEGAL_ADDRESS')")
    with (
        Pipeline(config("two GPUs", gpus.width)) as pipeline,
        pytest.raises(StageFailed, match=f"GpuLost: {call}: CUDA_ERROR_ILLEGAL_ADDRESS"),
    ):
        run(pipeline, numbers(4), tmp_path / "p")


def test_a_refusal_says_what_the_driver_said(fake_gpus, numbers, tmp_path, monkeypatch):
    monkeypatch.setenv("FAKE_CUDA_REFUSES", "cuIpcOpenMemHandle")
    with (
        Pipeline(config("two GPUs", fake_gpus.width, require="cuda")) as pipeline,
        pytest.raises(PlanError, match=r"`require: cuda` refuses: .*: cuIpcOpenMemHandle: CUDA_"),
    ):
        run(pipeline, numbers(4), tmp_path / "p")


def test_strict_refuses_gpus_that_are_no_peers(fake_gpus, numbers, tmp_path, monkeypatch):
    alone = replace(fake_host(probe_host()), peers=frozenset())
    monkeypatch.setattr("runtime.pipeline.probe_host", lambda: alone)
    with Pipeline(config("two GPUs", fake_gpus.width)) as pipeline:
        report = run(pipeline, numbers(4), tmp_path / "p")
    assert lines(tmp_path / "p") == expected(fake_gpus.width, 4)
    assert sum("cuda:1 is no peer of cuda:0" in warning for warning in report.warnings) == 1
    with (
        Pipeline(config("two GPUs", fake_gpus.width, strict=True)) as pipeline,
        pytest.raises(PlanError, match=r"cuda:1 is no peer of cuda:0; refused, as --strict"),
    ):
        run(pipeline, numbers(4), tmp_path / "q")


def test_the_pool_of_the_last_job_is_given_up_before_the_next_is_prepared(
    fake_gpus, numbers, tmp_path
):
    """What `prepare` takes could find no room beside it."""
    with Pipeline(config("two GPUs", fake_gpus.width)) as pipeline:
        for name in ("p", "q"):
            run(pipeline, numbers(NUM_ITEMS), tmp_path / name)
            assert lines(tmp_path / name) == expected(fake_gpus.width)
    steps = [event["name"] for event in Trace(tmp_path / "q/run/trace.json").slices[TRACK]]
    asked = [name for name in steps if name in ("MakePool", "Prepare")]
    assert asked == ["MakePool", "Prepare", "MakePool"]
