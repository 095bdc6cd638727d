import json
import os
import subprocess
import sys

import pytest

from tools.hop_cuda import SOURCES, TARGETS, item_bytes
from tools.hop_gpus import copy_gb_per_s, tasks
from tools.hop_pair import SLOTS

MEASURE = """
import json
from dataclasses import asdict
from tools.hop_gpus import measure_gpus, tasks
figures, details = measure_gpus([(0, 1)], tasks(0.02, large=65536, small=4096), repetitions=2)
print(json.dumps([[asdict(one) for one in figures], details]))
"""
# What the producer sends is not what the consumer makes of the same seed.
FORGE = """
import os, sys
from tools import hop_cuda
plain = hop_cuda.item_bytes
hop_cuda.item_bytes = lambda seed, item, nbytes: plain(bytes([os.getpid() % 251]), item, nbytes)
"""


@pytest.fixture
def with_fake_gpus(project):
    """Return a function that runs code where the driver has two GPUs that are none."""

    def run(code, *, site=None):
        places = [site, project / "tests/ipc/fake_cuda", project]
        path = ":".join(str(place) for place in places if place)
        env = {**os.environ, "FAKE_CUDA_GPUS": "2", "PYTHONPATH": path}
        command = [sys.executable, "-c", code]
        return subprocess.run(command, capture_output=True, text=True, timeout=120, env=env)

    return run


def test_hops_between_gpus_are_measured_and_their_bytes_are_right(with_fake_gpus):
    done = with_fake_gpus(MEASURE)
    assert done.returncode == 0, done.stderr
    figures, details = json.loads(done.stdout)
    assert [one["target"] for one in figures] == [None, None, 0.9, None, 150.0]
    assert all(one["measured"] > 0 for one in figures)
    runs = details["GPU 0 to GPU 1"]
    assert {len(each) for each in runs.values()} == {2}


def test_other_bytes_end_the_measurement(with_fake_gpus, tmp_path):
    (tmp_path / "sitecustomize.py").write_text(FORGE)  # in every process
    done = with_fake_gpus(MEASURE, site=tmp_path)
    assert done.returncode != 0
    assert "has other bytes" in done.stderr
    assert "its consumer died" in done.stderr


def test_no_item_is_mistaken_for_an_earlier_one_in_its_place():
    for places in (SLOTS, TARGETS):
        for item in range(60):
            assert item % SOURCES != (item - places) % SOURCES
    first, second = item_bytes(b"a", 0, 64), item_bytes(b"a", 1, 64)
    assert (first != second).any()
    assert (first == item_bytes(b"a", SOURCES, 64)).all()


def test_the_copy_alone_is_the_median_without_the_first():
    task = tasks(1.0, large=1000)["copy alone"]
    slow, fast = (0, 10**9), (0, 16 * 1000)  # ns for 16 copies of 1000 bytes
    assert copy_gb_per_s([slow] * 4 + [fast] * 3 + [slow], task) == pytest.approx(1.0)


def test_without_a_gpu_it_says_so(project):
    command = [sys.executable, project / "tools/bench_hop.py", "--gpu"]
    env = {"PATH": "/usr/bin:/bin", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, env=env)
    assert done.returncode == 0, done.stderr
    assert "note: " in done.stdout
