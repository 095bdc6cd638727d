"""GPUs for the tests of the data path: real ones, or fake ones whose workers are real processes."""

import os
import sys
from dataclasses import dataclass, replace
from types import SimpleNamespace

import pytest

from runtime.config import parse_config
from runtime.errors import StageFailed
from runtime.host import Gpu, probe_host
from runtime.journal import Journal
from runtime.pipeline import Pipeline
from runtime.stored import load_run_config
from tests import fake_torch
from tests.ipc.fake_driver import FakeDriver
from tests.ipc.fake_gpu import fake_uuid
from tests.runtime.gpu_runs import REAL
from tests.runtime.gpu_worker import GpuWorker

NUM_FAKE = 2
SLOW_S = 0.002  # what a fake copy or kernel takes at most


@dataclass(frozen=True)
class Gpus:
    """What runs use."""

    num: int
    width: int  # of the vectors: long enough to take time on a real GPU


def fake_host(host, num=NUM_FAKE):
    gpus = tuple(
        Gpu(index, f"GPU-{fake_uuid(index)}", "Fake GPU", total_bytes=2**36, free_bytes=2**35)
        for index in range(num)
    )
    uuids = [gpu.uuid for gpu in gpus]
    peers = frozenset((one, other) for one in uuids for other in uuids if one != other)
    return replace(host, gpus=gpus, peers=peers)


@pytest.fixture
def fake_gpus(monkeypatch, project):
    """Have the workers of this test find a fake driver and a fake torch."""
    folders = [project / "tests/ipc/fake_cuda", project / "tests/in_workers"]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(map(str, folders)))
    monkeypatch.setenv("FAKE_CUDA_GPUS", str(NUM_FAKE))
    monkeypatch.setenv("FAKE_CUDA_SLOW_S", str(SLOW_S))
    monkeypatch.setattr("runtime.pipeline.probe_host", lambda: fake_host(probe_host()))
    return Gpus(NUM_FAKE, width=2**10)


@pytest.fixture(params=["fake", REAL])
def gpus(request):
    if request.param == "fake":
        return request.getfixturevalue("fake_gpus")
    return Gpus(len(probe_host().gpus), width=2**18)


@pytest.fixture
def driver(monkeypatch):
    """Put the fake driver and the fake torch into this process; see that all is given back."""
    made = FakeDriver()
    monkeypatch.setitem(sys.modules, "cuda.bindings.driver", made)
    for name, modules in fake_torch.PARTS.items():
        for module in modules:
            monkeypatch.setattr(f"runtime.{module}.{name}", getattr(fake_torch, name))
    yield made
    made.join()
    assert made.left() == {}


@pytest.fixture
def gpu_worker(driver):
    """Return a function that makes one worker on a fake GPU, with all that it holds."""
    made = []

    def make(*stages, **options):
        made.append(GpuWorker(driver, stages, **options))
        return made[-1]

    yield make
    for worker in made:
        worker.close()


@pytest.fixture
def early(tmp_path, numbers):
    """A run on a disk that gets full at item 9 of 25; `again()` goes on with it."""
    full, log = tmp_path / "full", tmp_path / "log"
    full.touch()
    folder = tmp_path / "run"

    def config(*, add="Notes", sink="FullDisk", more=None, **run):
        sink_options = {"full": str(full), "at": 9}
        return parse_config(
            {
                "pipeline": "fake",
                "stages": {
                    "read": {"use": "tests.fakes:Numbers"},
                    "add": {"use": f"tests.resume_fakes:{add}", "with": {"log": str(log)}},
                    "write": {"use": f"tests.resume_fakes:{sink}", "with": sink_options},
                }
                | (more or {}),
                "run": run,
            }
        )

    def noted():
        items = [int(line) for line in log.read_text().split()] if log.exists() else []
        log.unlink(missing_ok=True)
        return sorted(items)

    def begin(*, inline=True, error=StageFailed, **options):
        with Pipeline(config(**options), inline=inline) as pipeline, pytest.raises(error):
            pipeline.run(input=numbers(25), output=tmp_path / "out", run_dir=folder)
        noted()
        full.unlink()

    def again(*, inline=True, given=None, **options):
        with Pipeline(given or load_run_config(folder), inline=inline) as pipeline:
            return pipeline.resume(folder, **options)

    def durable():
        with Journal.open(folder / "journal.sqlite") as journal:
            return list(journal.done(folder))

    return SimpleNamespace(
        config=config, begin=begin, again=again, noted=noted,
        durable=durable, folder=folder, full=full,
        out=tmp_path / "out", journal=folder / "journal.sqlite",
    )  # fmt: skip
