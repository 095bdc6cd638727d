import sys
from types import SimpleNamespace

import pytest

from runtime import gpu_use
from runtime.gpu_use import GpuUse
from tests.waiting import wait_until


class Nvml:
    """NVIDIA's library, as far as it is asked: two GPUs, of which one is hidden."""

    class NVMLError(Exception):
        pass

    def __init__(self, percents):
        self.percents, self.is_open = list(percents), False

    def nvmlInit(self):
        self.is_open = True

    def nvmlShutdown(self):
        self.is_open = False

    def nvmlDeviceGetHandleByUUID(self, uuid):
        if uuid == "GPU-hidden":
            raise self.NVMLError("not found")
        return uuid

    def nvmlDeviceGetUtilizationRates(self, _handle):
        return SimpleNamespace(gpu=self.percents.pop(0) if self.percents else 50)


@pytest.fixture
def nvml(monkeypatch):
    library = Nvml([0, 100])
    monkeypatch.setitem(sys.modules, "pynvml", library)
    monkeypatch.setattr(gpu_use, "SAMPLE_S", 0.001)
    return library


def test_the_use_of_a_gpu_is_the_mean_of_its_samples(nvml):
    with GpuUse(["GPU-1", "GPU-1"]) as use:
        wait_until(lambda: not nvml.percents)
    assert use.mean("GPU-1") == pytest.approx(0.5)
    assert not nvml.is_open


def test_a_gpu_that_does_not_tell_has_no_use(nvml):
    with GpuUse(["GPU-hidden", "GPU-1"]) as use:
        wait_until(lambda: not nvml.percents)
    assert use.mean("GPU-hidden") is None
    assert use.mean("GPU-1") is not None
    assert use.mean("GPU-of-another-run") is None


def test_without_gpus_there_is_nothing_to_sample(nvml):
    with GpuUse([]) as use:
        assert use.mean("GPU-1") is None
    assert nvml.percents == [0, 100], "the library was not even opened"


def test_without_the_library_the_use_is_not_known(monkeypatch):
    monkeypatch.setitem(sys.modules, "pynvml", None)
    with GpuUse(["GPU-1"]) as use:
        assert use.mean("GPU-1") is None


def test_a_run_shorter_than_a_sample_has_one_at_its_end(nvml, monkeypatch):
    monkeypatch.setattr(gpu_use, "SAMPLE_S", 60)
    with GpuUse(["GPU-1"]) as use:
        nvml.percents = [30]
    assert use.mean("GPU-1") == pytest.approx(0.3)
