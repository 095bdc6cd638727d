"""What a host offers is read from its files; the tests write such files."""

import sys
from types import SimpleNamespace

import pytest

from runtime.host import (
    Gpu,
    cgroup_folders,
    probe_gpus,
    probe_host,
    usable_cores,
    usable_memory,
    visible_gpus,
)

GIB = 2**30
V2 = "30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw\n"
V1 = (
    "32 31 0:30 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n"
    "35 31 0:32 /docker/abc /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n"
)


def make_host(root, *, mountinfo="", cgroup="", files=None):
    """Write the files of a host with 8 GiB available, and those of its cgroups."""
    meminfo = "MemTotal: 16777216 kB\nMemFree: 1 kB\nMemAvailable: 8388608 kB\n"
    contents = {
        "proc/meminfo": meminfo,
        "proc/self/mountinfo": f"22 1 8:1 / / rw - ext4 /dev/sda1 rw\n{mountinfo}",
        "proc/self/cgroup": cgroup,
        **{f"sys/fs/cgroup/{name}": text for name, text in (files or {}).items()},
    }
    for name, text in contents.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


def test_without_limits_all_cores_and_what_is_available_count(tmp_path):
    root = make_host(tmp_path)
    assert usable_cores(root, 8) == 8
    assert usable_memory(root) == 8 * GIB


@pytest.mark.parametrize(
    ("quota", "cores"),
    [("max 100000", 8), ("250000 100000", 2), ("50000 100000", 1), ("9000000 100000", 8), ("", 8)],
)
def test_a_v2_quota_limits_the_cores(tmp_path, quota, cores):
    root = make_host(tmp_path, mountinfo=V2, cgroup="0::/a\n", files={"a/cpu.max": f"{quota}\n"})
    assert usable_cores(root, 8) == cores


def test_the_tightest_quota_of_all_cgroups_above_counts(tmp_path):
    files = {"cpu.max": "max 100000\n", "a/cpu.max": "300000 100000\n", "a/b/cpu.max": "max 1000\n"}
    root = make_host(tmp_path, mountinfo=V2, cgroup="0::/a/b\n", files=files)
    assert usable_cores(root, 8) == 3


def test_a_v1_quota_limits_the_cores(tmp_path):
    folder = "cpu,cpuacct/a"
    files = {f"{folder}/cpu.cfs_quota_us": "150000\n", f"{folder}/cpu.cfs_period_us": "50000\n"}
    root = make_host(tmp_path, mountinfo=V1, cgroup="4:cpu,cpuacct:/a\n0::/\n", files=files)
    assert usable_cores(root, 8) == 3
    (root / "sys/fs/cgroup" / folder / "cpu.cfs_quota_us").write_text("-1\n")
    assert usable_cores(root, 8) == 8


def test_a_v2_limit_counts_with_droppable_cache_as_free(tmp_path):
    files = {
        "a/memory.max": f"{4 * GIB}\n",
        "a/memory.current": f"{3 * GIB}\n",
        "a/memory.stat": f"anon 5\ninactive_file {GIB}\nactive_file 7\n",
        "a/b/memory.max": "max\n",
        "a/b/memory.current": "5\n",
    }
    root = make_host(tmp_path, mountinfo=V2, cgroup="0::/a/b\n", files=files)
    assert usable_memory(root) == 2 * GIB


def test_a_full_cgroup_has_nothing_left(tmp_path):
    files = {"a/memory.max": "1000\n", "a/memory.current": "1500\n"}
    assert usable_memory(make_host(tmp_path, mountinfo=V2, cgroup="0::/a\n", files=files)) == 0


def test_a_v1_limit_is_found_below_what_a_container_mounts(tmp_path):
    files = {
        "memory/job/memory.limit_in_bytes": f"{2 * GIB}\n",
        "memory/job/memory.usage_in_bytes": f"{GIB}\n",
        "memory/memory.limit_in_bytes": "9223372036854771712\n",  # none
        "memory/memory.usage_in_bytes": "5\n",
    }
    cgroup = "4:memory:/docker/abc/job\n1:name=systemd:/\n"
    root = make_host(tmp_path, mountinfo=V1, cgroup=cgroup, files=files)
    assert usable_memory(root) == GIB


def test_a_cgroup_outside_of_the_container_is_that_of_the_container(tmp_path):
    root = make_host(tmp_path, mountinfo=V2, cgroup="0::/../../other\n")
    assert list(cgroup_folders(root, "memory")) == [root / "sys/fs/cgroup"]


def test_a_mount_point_with_a_space_is_understood(tmp_path):
    mountinfo = V2.replace("/sys/fs/cgroup", r"/sys/fs/c\040group")
    root = make_host(tmp_path, mountinfo=mountinfo, cgroup="0::/\n")
    assert list(cgroup_folders(root, "memory")) == [root / "sys/fs/c group"]


A, B, C = (
    Gpu(index=index, uuid=f"GPU-{letter}0000000-x", name="H", total_bytes=9, free_bytes=8)
    for index, letter in enumerate("abc")
)


@pytest.mark.parametrize(
    ("visible", "uuids"),
    [
        (None, [A, B, C]),
        ("", []),
        ("2,0", [C, A]),
        (" 1 , 2 ", [B, C]),
        ("0,7,1", [A]),
        ("-1,0", []),
        ("1,1", []),
        ("GPU-c", [C]),
        ("GPU-c0000000-x,GPU-a", [C, A]),
        ("GPU-", []),
        ("MIG-1", []),
        ("NoDevFiles", []),
    ],
)
def test_gpus_are_numbered_as_cuda_visible_devices_says(visible, uuids):
    seen, note = visible_gpus([A, B, C], visible)
    assert [gpu.uuid for gpu in seen] == [gpu.uuid for gpu in uuids]
    assert [gpu.index for gpu in seen] == list(range(len(uuids)))
    hidden = 3 - len(uuids)
    assert note == (f"CUDA_VISIBLE_DEVICES={visible} hides {hidden} of 3 GPUs" if hidden else "")


class NvmlError(Exception):
    pass


class FakeNvml:
    """Two GPUs, of which the second has fallen off the bus."""

    NVMLError = NvmlError
    opened = 0
    driver = True

    def nvmlInit(self):
        if not self.driver:
            raise NvmlError("NVML Shared Library Not Found")
        self.opened += 1

    def nvmlShutdown(self):
        self.opened -= 1

    def nvmlDeviceGetCount(self):
        return 2

    def nvmlDeviceGetHandleByIndex(self, index):
        if index == 1:
            raise NvmlError("GPU is lost")
        return index

    def nvmlDeviceGetUUID(self, handle):
        return "GPU-1"

    def nvmlDeviceGetName(self, handle):
        return "NVIDIA H200"

    def nvmlDeviceGetMemoryInfo(self, handle):
        return SimpleNamespace(total=150, free=149, used=1)


@pytest.fixture
def nvml(monkeypatch):
    fake = FakeNvml()
    monkeypatch.setitem(sys.modules, "pynvml", fake)
    yield fake
    assert fake.opened == 0


def test_a_lost_gpu_leaves_the_others(nvml):
    gpus, note = probe_gpus()
    assert gpus == (Gpu(0, "GPU-1", "NVIDIA H200", 150, 149),)
    assert note == "GPU 1 does not answer: GPU is lost"


def test_without_a_driver_there_are_no_gpus_and_a_reason(nvml):
    nvml.driver = False
    assert probe_gpus() == ((), "no NVIDIA driver: NVML Shared Library Not Found")


def test_without_the_package_there_are_no_gpus_and_a_reason(monkeypatch):
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert probe_gpus() == ((), "nvidia-ml-py is not installed")


def test_this_host_is_described(nvml, tmp_path):
    host = probe_host(make_host(tmp_path), {"CUDA_VISIBLE_DEVICES": "0"})
    assert host.cores >= 1
    assert host.memory_bytes == 8 * GIB
    assert [gpu.uuid for gpu in host.gpus] == ["GPU-1"]
    assert host.python.startswith("3.")
    assert probe_host().memory_bytes > 0
