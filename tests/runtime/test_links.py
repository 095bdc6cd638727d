"""Links between GPUs are tried by real processes, and whatever becomes of those, the doctor tells.

The GPUs are none, but for the last test: the processes load a fake driver, or a faulty one.
"""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from runtime import link_process, links
from runtime.host import Gpu, probe_host
from runtime.links import measure_links
from runtime.transports import COPY, HOST, VIEW
from tests.ipc.fake_gpu import fake_uuid
from tests.waiting import wait_until

GPUS = tuple(Gpu(i, f"GPU-{fake_uuid(i)}", "Fake GPU", 2**30, 2**30) for i in range(2))
KILLED = "killed by signal 9, SIGKILL"
REAL = probe_host().gpus
ALL = [
    (owner, reader, transport)
    for owner in (0, 1)
    for reader in (0, 1)
    for transport in (VIEW if owner == reader else COPY, HOST)
]

DRIVER = """
import os, signal, sys, threading
from pathlib import Path
from tests.ipc.fake_driver import FakeDriver
from tests.ipc.fake_gpu import Refused, fake_uuid, function
IS_SECOND_GPU = os.environ["CUDA_VISIBLE_DEVICES"] == f"GPU-{{fake_uuid(1)}}"
def die():
    os.kill(os.getpid(), signal.SIGKILL)
def hang():
    threading.Event().wait()
class Faulty(FakeDriver):
    copies = 0
    def __init__(self):
        super().__init__()
        (Path({folder!r}) / str(os.getpid())).touch()
{method}
sys.modules[__name__] = Faulty()
"""
OPENS = """
    @function(needs_context=True)
    def cuIpcOpenMemHandle(self, handle, flags):
        {what}
"""


@pytest.fixture
def fake_gpus(monkeypatch, project):
    """Have all processes see GPUs that are none, and make everything small."""
    monkeypatch.setenv("PYTHONPATH", str(project / "tests/ipc/fake_cuda"))
    monkeypatch.setenv("FAKE_CUDA_GPUS", "2")
    monkeypatch.setattr(links, "LARGE_BYTES", 2**18)
    monkeypatch.setattr(links, "SMALL_BYTES", 2**12)
    monkeypatch.setattr(links, "ROUND_TRIPS", 20)


@pytest.fixture
def faulty(fake_gpus, monkeypatch, tmp_path):
    """Return a function that gives the driver another method; it returns a list of processes."""

    def make(method):
        package, pids = tmp_path / "cuda/bindings", tmp_path / "pids"
        package.mkdir(parents=True)
        pids.mkdir()
        (package / "__init__.py").touch()
        (package / "driver.py").write_text(DRIVER.format(folder=str(pids), method=method))
        monkeypatch.setenv("PYTHONPATH", str(tmp_path))
        return lambda: [int(path.name) for path in pids.iterdir()]

    return make


def errors(found):
    return {(link.owner, link.reader, link.transport): link.error for link in found}


def test_every_pair_is_tried_by_every_transport(fake_gpus):
    found = measure_links(GPUS)
    assert errors(found) == dict.fromkeys(ALL, "")
    assert list(errors(found)) == ALL
    assert all(link.gb_per_s > 0 and link.round_trip_us > 0 for link in found)


def test_gpus_have_the_numbers_that_users_gave_them(fake_gpus):
    gpus = tuple(Gpu(7 - gpu.index, *[getattr(gpu, n) for n in gpu.__slots__[1:]]) for gpu in GPUS)
    found = measure_links(gpus)
    assert {link.owner for link in found} == {link.reader for link in found} == {6, 7}
    assert {link.transport for link in found if link.owner == link.reader} == {VIEW, HOST}


@pytest.mark.parametrize(
    ("what", "why", "num_processes"),
    [
        ("raise Refused('NOT_SUPPORTED')", "cuIpcOpenMemHandle: CUDA_ERROR_NOT_SUPPORTED", 4),
        ("die()", KILLED, 8),
        ("sys.exit('no such luck')", "exit code 1: no such luck", 8),
    ],
)
def test_a_gpu_that_cannot_be_read_is_told_and_reached_through_the_host(
    faulty, what, why, num_processes
):
    processes = faulty(OPENS.format(what=what))
    for (_owner, _reader, transport), error in errors(measure_links(GPUS)).items():
        assert error.startswith("" if transport == HOST else f"reader: {why}")
        assert bool(error) == (transport != HOST)
    assert len(processes()) <= num_processes, "whoever refuses is as good as before"


@pytest.mark.slow
def test_a_process_that_stands_still_is_given_up(faulty, monkeypatch):
    monkeypatch.setattr(links, "ANSWER_S", 3.0)
    faulty(
        OPENS.format(
            what="hang() if IS_SECOND_GPU else None\n        raise Refused('ILLEGAL_ADDRESS')"
        )
    )
    found = errors(measure_links(GPUS))
    assert found[0, 1, COPY] == found[1, 1, VIEW] == "reader: no answer for 3 s"
    assert found[1, 0, COPY].startswith("reader: cuIpcOpenMemHandle: CUDA_ERROR_ILLEGAL_ADDRESS")
    assert {error for (*_gpus, transport), error in found.items() if transport == HOST} == {""}


@pytest.mark.slow
def test_whoever_dies_in_the_middle_holds_up_nobody(faulty):
    method = """
    def cuMemcpyAsync(self, *args):
        self.copies += 1
        if self.copies == 30 and IS_SECOND_GPU:
            die()
        return super().cuMemcpyAsync(*args)
    """
    faulty(method)
    began = time.monotonic()
    told = {}
    for (owner, reader, _transport), error in errors(measure_links(GPUS)).items():
        told.setdefault((owner, reader), set()).add(error)
    assert told[0, 0] == {""}
    assert told[0, 1] == {f"reader: {KILLED}"}
    assert told[1, 0] == {f"owner: {KILLED}"}
    assert told[1, 1] <= {f"owner: {KILLED}", f"reader: {KILLED}"}
    assert time.monotonic() - began < 6 * links.ANSWER_S, "the other end was not waited for"


@pytest.mark.slow
def test_bytes_that_come_over_wrong_are_no_link(faulty):
    method = """
    def cuMemcpyAsync(self, target, source, nbytes, stream):
        if source in self.opened:
            source += 1
        return super().cuMemcpyAsync(target, source, nbytes, stream)
    """
    processes = faulty(method)
    for (_owner, _reader, transport), error in errors(measure_links(GPUS)).items():
        wrong = "reader: what arrived is not what was written"
        assert error == ("" if transport == HOST else wrong)
    assert len(processes()) == 4, "they have answered, and go on"


def test_a_gpu_that_does_not_open_leaves_the_others(fake_gpus, monkeypatch):
    monkeypatch.setenv("FAKE_CUDA_GPUS", "1")
    for (owner, reader, _transport), error in errors(measure_links(GPUS)).items():
        role = "owner" if owner == 1 else "reader"
        assert error.startswith(f"{role}: cuInit: CUDA_ERROR_NO_DEVICE" if owner + reader else "")
        assert bool(error) == bool(owner + reader)


def test_a_gpu_that_opens_for_ever_is_given_up(faulty, monkeypatch):
    monkeypatch.setattr(links, "START_S", 1.0)
    faulty("    def cuInit(self, flags):\n        hang()")
    assert set(errors(measure_links(GPUS[:1])).values()) == {"owner: no answer for 1 s"}


def test_a_gpu_without_memory_is_told(fake_gpus, monkeypatch):
    monkeypatch.setattr(links, "LARGE_BYTES", 2**26)
    for error in errors(measure_links(GPUS[:1])).values():
        assert error.startswith(f"owner: pool link/1@gpu: {GPUS[0].uuid} refused 128 MiB, ")


def test_without_what_calls_the_driver_that_is_the_reason(fake_gpus, monkeypatch, tmp_path):
    (tmp_path / "cuda").mkdir()
    (tmp_path / "cuda/__init__.py").touch()  # hides the installed one, and has nothing
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    for error in errors(measure_links(GPUS[:1])).values():
        assert error.startswith("owner: the package cuda-bindings cannot be imported")


def test_a_host_without_memory_still_has_links_between_gpus(fake_gpus, monkeypatch):
    monkeypatch.setattr(links, "usable_memory", lambda _root: 2**19)
    found = errors(measure_links(GPUS[:1]))
    assert found == {(0, 0, VIEW): "", (0, 0, HOST): "the host has only 0 MiB free"}


def test_a_host_that_refuses_processes_is_told(fake_gpus, monkeypatch):
    monkeypatch.setattr(link_process.sys, "executable", "/nowhere/python")
    for error in errors(measure_links(GPUS)).values():
        assert error.startswith("owner: cannot start a process: ")


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGKILL])
def test_an_interrupted_doctor_leaves_no_process(faulty, tmp_path, project, signum):
    processes = faulty("    def cuInit(self, flags):\n        hang()")
    code = f"from runtime.links import *; measure_links([Gpu{tuple(vars_of(GPUS[0]))}])"
    path = os.pathsep.join([str(project), os.environ["PYTHONPATH"]])
    doctor = subprocess.Popen(
        [sys.executable, "-P", "-c", code],
        env={**os.environ, "PYTHONPATH": path, "TMPDIR": str(tmp_path)},
        stderr=subprocess.DEVNULL,
    )
    try:
        wait_until(processes)
        pids = children(doctor.pid)
        assert len(pids) == 2
        doctor.send_signal(signum)
        assert doctor.wait(timeout=20) != 0
        wait_until(lambda: not any(lives(pid) for pid in pids))
    finally:
        doctor.kill()
        doctor.wait()
    assert [p for p in tmp_path.glob("rp-*") if signum == signal.SIGINT] == []


def lives(pid):
    try:
        return b"link_end" in Path(f"/proc/{pid}/cmdline").read_bytes()  # that of a zombie is empty
    except OSError:
        return False


def vars_of(gpu):
    return [getattr(gpu, name) for name in gpu.__slots__]


def children(pid):
    return [int(one) for one in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@pytest.mark.gpu
@pytest.mark.skipif(not REAL, reason="needs a GPU")
def test_real_gpus_reach_each_other_at_a_sane_speed():
    began = time.monotonic()
    found = measure_links(REAL[:2])
    assert time.monotonic() - began < 30
    assert {link.error for link in found if link.transport in (VIEW, HOST)} == {""}
    for link in found:
        if not link.error:
            assert link.gb_per_s > {VIEW: 100, COPY: 10, HOST: 1}[link.transport]
            assert 5 < link.round_trip_us < 5000
    if probe_host().peers >= {(a.uuid, b.uuid) for a in REAL[:2] for b in REAL[:2] if a != b}:
        assert {link.error for link in found} == {""}
