"""The end of workers: what is open is let go of in order, and nothing is waited for without end."""

import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from runtime import process
from runtime.errors import RunInterrupted
from runtime.pipeline import Pipeline
from runtime.process import WorkerProcess
from runtime.worker_plan import WorkerPlan
from tests.runtime.gpu_runs import STAGES, config
from tests.waiting import wait_until

DRIVER = """
import sys
from tests.gpu_fakes import note
from tests.ipc.fake_driver import FakeDriver
class Notes(FakeDriver):
    shared = set()
    def cuIpcGetMemHandle(self, address):
        self.shared.add(address)
        note("shares a pool")
        return super().cuIpcGetMemHandle(address)
    def cuMemFree(self, address):
        if address in self.shared:
            self.shared.remove(address)
            note("frees a pool")
        return super().cuMemFree(address)
    def cuIpcOpenMemHandle(self, *given):
        note("opens a pool")
        return super().cuIpcOpenMemHandle(*given)
    def cuIpcCloseMemHandle(self, address):
        note("closes a pool")
        return super().cuIpcCloseMemHandle(address)
    def cuDevicePrimaryCtxRelease(self, device):
        note("gives its context up")
        return super().cuDevicePrimaryCtxRelease(device)
sys.modules[__name__] = Notes()
"""


@pytest.fixture
def notes(fake_gpus, tmp_path, monkeypatch, project):
    """Have the workers note the order in which they let go; return a function that reads that."""
    package, log = tmp_path / "cuda/bindings", tmp_path / "notes"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "driver.py").write_text(DRIVER)
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{project}/tests/in_workers")
    monkeypatch.setenv("FAKE_CUDA_NOTES", str(log))
    monkeypatch.setenv("FAKE_CUDA_SLOW_S", "0.05")

    def by_process():
        found = {}
        for line in log.read_text().splitlines():
            pid, _space, what = line.partition(" ")
            found.setdefault(int(pid), []).append(what)
        return found

    return by_process


def interrupt_in_the_middle(live):
    def interrupt():
        wait_until(lambda: live.tally.units_done > 0)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=interrupt).start()


def test_an_interrupted_run_closes_others_pools_before_stages_and_frees_none(
    fake_gpus, numbers, tmp_path, notes
):
    noting = {
        name: {"use": f"tests.gpu_fakes:{use}", "with": STAGES[name]["with"]}
        for name, use in (("first", "DoubleNotes"), ("second", "DoubleNotes"))
    }
    with (
        Pipeline(config("apart on two", fake_gpus.width, **noting)) as pipeline,
        pytest.raises(RunInterrupted),
    ):
        pipeline.run(
            input=numbers(2000),
            output=tmp_path / "out",
            run_dir=tmp_path / "run",
            on_start=interrupt_in_the_middle,
        )
    done = notes()
    readers = [each for each in done.values() if "opens a pool" in each]
    assert len(readers) == 2, "second and third"
    for each in readers:
        assert each.count("closes a pool") == each.count("opens a pool")
    ends = [each for each in done.values() if "closes a stage" in each]
    assert [each[-1] for each in ends] == ["closes a stage"] * 2
    owners = [each for each in done.values() if "shares a pool" in each]
    assert len(owners) == 2, "first and second"
    for each in owners:
        assert "frees a pool" not in each[len(each) - each[::-1].index("shares a pool") :]
    assert not any("gives its context up" in each for each in done.values())
    logs = "".join(path.read_text() for path in (tmp_path / "run").rglob("*.log"))
    assert "left open job" not in logs
    assert "Traceback" not in logs


@pytest.fixture
def sleeper(tmp_path):
    """Return a worker's process as its owner has it; SIGKILL does not reach it."""
    command = [sys.executable, "-c", "import time; time.sleep(600)"]
    started = subprocess.Popen(command)
    plan = WorkerPlan("add/0", ("add",), None, 1)
    worker = WorkerProcess(plan, 0, "", started, pidfd=-1)
    kill, started.kill = started.kill, lambda: None
    yield worker
    kill()
    started.wait()


def test_a_process_that_sigkill_does_not_end_is_left_with_its_pid(sleeper, monkeypatch, caplog):
    monkeypatch.setattr(process, "KILLED_S", 0.1)
    began = time.monotonic()
    sleeper.kill()
    assert time.monotonic() - began < 5
    assert f"left worker=add/0 pid={sleeper.process.pid}" in caplog.text
