"""What a worker does before it is told anything: it imports its stages, and opens its GPU."""

import gc

import pytest

from ipc.records import StageUse
from ipc.setup_messages import Configure, Configured
from runtime.ahead import Ahead
from runtime.crew import ME
from runtime.errors import ConfigError
from runtime.fleet import Fleet
from runtime.hosted import pack
from runtime.pipeline import Pipeline
from runtime.worker_plan import WorkerPlan
from tests.runtime.conftest import fake_host, probe_host
from tests.runtime.gpu_runs import config
from tests.waiting import wait_until

DRIVER = """
import sys
from tests.gpu_fakes import note
from tests.ipc.fake_driver import FakeDriver
class Notes(FakeDriver):
    def cuDevicePrimaryCtxRetain(self, device):
        note("opens a GPU")
        return super().cuDevicePrimaryCtxRetain(device)
sys.modules[__name__] = Notes()
"""
MODULE = "from tests.gpu_fakes import note; note('imports')"


@pytest.fixture
def notes(fake_gpus, tmp_path, monkeypatch, project):
    """Have workers note what they do; return a function that reads that."""
    package, log = tmp_path / "cuda/bindings", tmp_path / "notes"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "driver.py").write_text(DRIVER)
    (tmp_path / "noted.py").write_text(MODULE)
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{project}/tests/in_workers")
    monkeypatch.setenv("FAKE_CUDA_NOTES", str(log))
    log.touch()
    return lambda: {line.partition(" ")[2] for line in log.read_text().splitlines()}


@pytest.mark.parametrize(
    ("opens", "done"), [(True, {"imports", "opens a GPU"}), (False, {"imports"})]
)
def test_a_worker_imports_its_stages_and_opens_its_gpu_at_once(tmp_path, notes, opens, done):
    plan = WorkerPlan("first/0", ("first",), fake_host(probe_host()).gpus[0], 1, ("noted",))
    with Fleet(run_dir=tmp_path, hang_s=60, stop_grace_s=10) as fleet:
        fleet.opens_gpus = opens
        fleet.start([plan])
        wait_until(lambda: notes() >= done)
    assert notes() == done


def test_a_dry_run_opens_no_gpu_and_a_run_does(fake_gpus, numbers, tmp_path, notes):
    made = config("one worker", fake_gpus.width)
    with Pipeline(made) as pipeline:
        pipeline.plan(input=numbers(3), output=tmp_path / "out", run_dir=tmp_path / "plan")
    assert "opens a GPU" not in notes()
    with Pipeline(made) as pipeline:
        pipeline.run(input=numbers(3), output=tmp_path / "out", run_dir=tmp_path / "run")
    assert "opens a GPU" in notes()


def test_a_module_that_cannot_be_imported_is_told_of_once(tmp_path, notes):
    (tmp_path / "broken.py").write_text("import no_such_library")
    plan = WorkerPlan("first/0", ("first",), None, 1, ("broken",))
    use = StageUse(name="first", use="broken:Double", defaults=pack({}), options=pack({}))
    with Fleet(run_dir=tmp_path, hang_s=60, stop_grace_s=10) as fleet:
        fleet.start([plan])
        with pytest.raises(ConfigError, match="cannot import broken: No module named 'no_such_li"):
            fleet.ask(Configured, {"first/0": Configure(**ME, stages=(use,))})
    log = (tmp_path / "logs/first.0.log").read_text()
    assert log.count("failed doing=Configure") == 1
    assert "Exception in thread" not in log


def test_garbage_is_looked_for_again_when_all_is_imported():
    before = gc.get_freeze_count()
    ahead = Ahead(["no_such_module", "tests.fakes"], opens_gpu=False)
    try:
        ahead.start()
        ahead.join()
        assert gc.isenabled()
        assert gc.get_freeze_count() > before
    finally:
        gc.unfreeze()
