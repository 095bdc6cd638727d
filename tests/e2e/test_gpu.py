"""The GPU configurations, where there are GPUs. One GPU takes the part of two, and it is said."""

import hashlib
from pathlib import Path

import pytest

from runtime.config import load_config
from runtime.host import probe_host
from runtime.pipeline import Pipeline
from runtime.report import load_report
from tests.stages.video.clips import pictures

GPUS = probe_host().gpus
CONFIGS = (
    "single_gpu.yaml",
    "dual_gpu.yaml",
    "dual_gpu_replicas.yaml",
    "dual_gpu_origin.yaml",
)

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not GPUS, reason="needs a GPU")]


def run(config_name, clip, folder, *overrides):
    weights = "model.weights=random:0:small"
    config = load_config(config_name, [weights, "video.pairs=4", *overrides])
    folder.mkdir()
    with Pipeline(config) as pipeline:
        report = pipeline.run(input=clip, output=folder / "out.mp4", run_dir=folder / "run")
    return report, hashlib.sha256((folder / "out.mp4").read_bytes()).hexdigest()


def test_every_gpu_configuration_writes_the_same_bytes(clip, tmp_path):
    results = {name: run(name, clip, tmp_path / name) for name in CONFIGS}
    assert len({digest for _report, digest in results.values()}) == 1
    assert len(pictures(tmp_path / "dual_gpu.yaml/out.mp4")) == 33
    for name, (report, _digest) in results.items():
        devices = {worker.device for worker in report.workers if worker.device != "cpu"}
        wanted = 1 if name == "single_gpu.yaml" else 2
        assert len(devices) == min(wanted, len(GPUS)), name
        assert bool(report.warnings) == (wanted > len(GPUS)), name
        for worker in report.workers:
            on_gpu = worker.device != "cpu"
            assert (worker.gpu_peak_bytes > 0) == on_gpu
            assert (worker.gpu_utilization is not None) == on_gpu


def test_reading_and_writing_stay_off_the_gpus(clip, tmp_path):
    run("dual_gpu.yaml", clip, tmp_path / "out")
    report = load_report(tmp_path / "out/run/report.json")
    others = [w for w in report.workers if w.name.startswith(("read/", "write/"))]
    assert {(w.device, w.gpu_peak_bytes) for w in others} == {("cpu", 0)}


def test_half_precision_and_single_precision_agree(clip, tmp_path):
    for dtype in ("float32", "bfloat16", "float16"):
        run("single_gpu.yaml", clip, tmp_path / dtype, f"model.dtype={dtype}", "video.crf=0")
    exact = pictures(tmp_path / "float32/out.mp4")
    for dtype in ("bfloat16", "float16"):
        for one, other in zip(pictures(tmp_path / dtype / "out.mp4"), exact, strict=True):
            assert abs(one.astype(int) - other.astype(int)).max() <= 12, dtype


def test_the_same_run_twice_gives_the_same_bytes(clip, tmp_path):
    digests = {run("dual_gpu.yaml", clip, tmp_path / str(n))[1] for n in range(2)}
    assert len(digests) == 1
    assert Path(tmp_path / "0/run/report.json").exists()
