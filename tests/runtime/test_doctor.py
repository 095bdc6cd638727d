"""The doctor tells what is there, and never fails over what is not."""

import json
import re
import sys
from dataclasses import replace
from types import SimpleNamespace

import msgspec
import pytest

from runtime.cli import answer
from runtime.config import CONFIGS
from runtime.doctor import (
    Advice,
    Driver,
    Limit,
    advise,
    examine,
    memfd_error,
    needed_versions,
    probe_driver,
)
from runtime.doctor_text import describe_checkup
from runtime.host import Gpu, Host
from runtime.links import Link

GIB = 2**30
GPUS = tuple(Gpu(index, f"GPU-{index}", "NVIDIA H200", 140 * GIB, 139 * GIB) for index in range(2))
HOST = Host("box", "6.1", "3.11.7", cores=16, memory_bytes=128 * GIB)

LINKS = (
    Link(0, 0, "cuda-view", "", 1940.2, 95.4),
    Link(0, 1, "cuda-copy", "", 388.0, 110.0),
    Link(0, 1, "host", "", 7.25, 250.0),
    Link(1, 0, "cuda-copy", "reader: no answer for 10 s", None, None),
)


class NvmlError(Exception):
    pass


class FakeNvml:
    """Two GPUs, of which only the first reads the other's memory."""

    NVMLError = NvmlError
    NVML_P2P_CAPS_INDEX_READ = (0,)  # as in nvidia-ml-py 13
    opened = 0

    def nvmlInit(self):
        self.opened += 1

    def nvmlShutdown(self):
        self.opened -= 1

    def nvmlSystemGetDriverVersion(self):
        return "580.65.06"

    def nvmlSystemGetCudaDriverVersion_v2(self):
        return 13020

    def nvmlDeviceGetCount(self):
        return 2

    def nvmlDeviceGetHandleByIndex(self, index):
        return f"GPU-{index}"

    def nvmlDeviceGetUUID(self, handle):
        return handle

    def nvmlDeviceGetHandleByUUID(self, uuid):
        return uuid

    def nvmlDeviceGetName(self, handle):
        return "NVIDIA H200"

    def nvmlDeviceGetMemoryInfo(self, handle):
        return SimpleNamespace(total=140 * GIB, free=139 * GIB)

    def nvmlDeviceGetP2PStatus(self, one, other, index):
        assert index == 0
        return 0 if one == "GPU-0" else 1


@pytest.fixture
def nvml(monkeypatch):
    fake = FakeNvml()
    monkeypatch.setitem(sys.modules, "pynvml", fake)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    yield fake
    assert fake.opened == 0


@pytest.fixture
def no_nvml(monkeypatch):
    monkeypatch.setitem(sys.modules, "pynvml", None)


def test_the_driver_says_who_reads_whose_memory(nvml):
    peers = (("-", "yes"), ("no: chipset", "-"))
    assert probe_driver(GPUS) == Driver(version="580.65.06", cuda="13.2", peers=peers)


def test_a_pair_that_does_not_answer_leaves_the_rest(nvml, monkeypatch):
    def lost(*_arguments):
        raise NvmlError("GPU is lost")

    monkeypatch.setattr(nvml, "nvmlDeviceGetP2PStatus", lost)
    assert probe_driver(GPUS).peers[0] == ("-", "unknown: GPU is lost")


def test_without_a_driver_there_is_nothing_to_say(no_nvml):
    assert probe_driver(GPUS) == Driver()


def test_pools_can_be_made_here():
    assert memfd_error() == ""


def test_what_setup_cfg_asks_for_is_looked_up():
    found = needed_versions()
    assert list(found)[:2] == ["torch", "numpy"]
    assert found["msgspec"] == msgspec.__version__


@pytest.mark.parametrize(
    ("name", "num_gpus", "advice"),
    [
        ("demo", 0, (True, "5 workers, no GPU")),
        ("single_gpu", 0, (False, "needs 1 GPU, this host has none")),
        ("single_gpu", 1, (True, "8 workers, 1 GPU")),
        ("dual_gpu", 0, (False, "needs 2 GPUs, this host has none")),
        ("dual_gpu", 1, (False, "9 workers; asks for 2 GPUs, this host has 1 GPU to share")),
        ("dual_gpu", 2, (True, "9 workers, 2 GPUs")),
    ],
)
def test_a_configuration_is_held_against_the_host(tmp_path, name, num_gpus, advice):
    path = tmp_path / f"{name}.yaml"
    text = (CONFIGS / path.name).read_text()
    path.write_text(re.sub(r"(?m)weights: \S+", "weights: random:0", text))
    host = replace(HOST, gpus=GPUS[:num_gpus])
    assert advise(path, host) == Advice(path.name, *advice)


def test_missing_weights_and_broken_files_are_told(tmp_path):
    path = tmp_path / "c.yaml"
    text = (CONFIGS / "demo.yaml").read_text()
    path.write_text(re.sub(r"(?m)weights: \S+", "weights: no/eden.pt", text))
    text = "5 workers, no GPU; weights are missing: no/eden.pt"
    assert advise(path, HOST) == Advice("c.yaml", fits=False, text=text)
    path.write_text("pipeline: [")
    assert advise(path, HOST).text.startswith(f"{path}: line 1, column 12: ")


def test_a_host_with_gpus_is_shown_with_their_peers(nvml):
    text = describe_checkup(examine())
    for line in (
        "driver         580.65.06, for CUDA up to 13.2",
        "GPU  name          memory     free  UUID",
        "0    NVIDIA H200  140 GiB  139 GiB  GPU-0",
        "reads directly  0            1",
        "0               -            yes",
        "1               no: chipset  -",
    ):
        assert line in text.splitlines()


def test_a_host_without_gpus_is_shown_with_the_reason(no_nvml):
    text = describe_checkup(examine())
    assert "GPUs           none: nvidia-ml-py is not installed" in text
    assert "memfd          works" in text
    assert "single_gpu.yaml" in text


def test_limits_and_what_is_missing_are_shown(no_nvml):
    checkup = replace(
        examine(),
        memfd_error="Function not implemented",
        locked_memory=Limit(2**16, None),
        open_files=Limit(1024, 1024),
        ptrace_scope=1,
        versions={"av": ""},
    )
    lines = [line.split(maxsplit=1) for line in describe_checkup(checkup).splitlines()]
    shown = {words[0]: words[1] for words in lines if len(words) == 2}
    assert shown["memfd"] == "does not work: Function not implemented"
    assert shown["locked"] == "memory  64.0 KiB, may be raised to unlimited"
    assert shown["open"] == "files     1024"
    assert shown["ptrace"].startswith("1: children only; ")
    assert shown["packages"] == "av MISSING"


def test_yama_is_read_where_it_is(tmp_path, no_nvml):
    (tmp_path / "proc/sys/kernel/yama").mkdir(parents=True)
    (tmp_path / "proc/sys/kernel/yama/ptrace_scope").write_text("2\n")
    (tmp_path / "proc/meminfo").write_text("MemAvailable: 8 kB\n")
    checkup = examine(tmp_path, configs=tmp_path)
    assert (checkup.ptrace_scope, checkup.shm_bytes, checkup.configs) == (2, 0, ())


def test_all_of_it_is_json_too(no_nvml):
    found = json.loads(msgspec.json.encode(examine()))
    assert found["host"]["cores"] >= 1
    assert {advice["name"] for advice in found["configs"]} >= {"demo.yaml"}


def test_links_are_a_table_with_the_reason_where_one_does_not_work(no_nvml):
    lines = describe_checkup(replace(examine(), links=LINKS)).splitlines()
    start = lines.index("owner  reader  transport  works     64 MiB  1 MiB round trip")
    assert lines[start + 1 : start + 6] == [
        "0      0       cuda-view  yes    1940 GB/s             95 us",
        "0      1       cuda-copy  yes     388 GB/s            110 us",
        "0      1       host       yes     7.2 GB/s            250 us",
        "1      0       cuda-copy  no                                  reader: no answer for 10 s",
        "",
    ]


@pytest.fixture
def measured(monkeypatch):
    """Have links measured by nobody; return what was asked for."""
    asked = []
    monkeypatch.setattr("runtime.links.measure_links", lambda gpus: asked.append(gpus) or LINKS)
    return asked


def test_links_are_measured_unless_that_is_unwanted(nvml, measured, capsys):
    assert answer(["doctor"]) == 0
    assert "388 GB/s" in capsys.readouterr().out
    assert [[gpu.uuid for gpu in gpus] for gpus in measured] == [["GPU-0", "GPU-1"]]
    assert answer(["doctor", "--no-links"]) == 0
    assert "round trip" not in capsys.readouterr().out
    assert len(measured) == 1


def test_links_are_json_too(nvml, measured, capsys):
    assert answer(["doctor", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["links"]
    assert found[1] == {
        "owner": 0,
        "reader": 1,
        "transport": "cuda-copy",
        "error": "",
        "gb_per_s": 388.0,
        "round_trip_us": 110.0,
    }
    assert (found[3]["error"], found[3]["gb_per_s"]) == ("reader: no answer for 10 s", None)


def test_without_gpus_there_are_no_links(no_nvml, measured):
    assert (examine(with_links=True).links, measured) == ((), [])
