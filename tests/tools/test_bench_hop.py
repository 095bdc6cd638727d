import json
import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

ALONE, SMALL = 0, 4096


@contextmanager
def start(project, folder, *arguments):
    """Start the tool in a session of its own, by which all its processes are found, and killed."""
    with subprocess.Popen(
        [sys.executable, project / "tools/bench_hop.py", *map(str, arguments)],
        cwd=folder,
        env={**os.environ, "TMPDIR": str(folder)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as tool:
        try:
            yield tool
        finally:
            with suppress(ProcessLookupError):
                os.killpg(tool.pid, signal.SIGKILL)


def session(leader):
    """Return the processes of a session that are no zombies."""
    found = set()
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                state, _parent, _group, of = (
                    (folder / "stat").read_text().rpartition(")")[2].split()[:4]
                )
            except OSError:
                continue
            if int(of) == leader and state != "Z":
                found.add(int(folder.name))
    return found


def assert_nothing_is_left(tool, folder):
    deadline = time.monotonic() + 2.0  # multiprocessing's resource tracker ends after its parent
    while session(tool.pid):
        assert time.monotonic() < deadline, f"left {session(tool.pid)} behind"
        time.sleep(0.01)
    assert list(folder.glob("rp-*")) == []


@pytest.mark.slow
def test_a_small_run_measures_every_contender_and_leaves_nothing_behind(project, tmp_path):
    arguments = ("--size", "4KiB", "--seconds", 0.05, "--repetitions", 2, "--json", "hop.json")
    with start(project, tmp_path, *arguments) as tool:
        printed, said = tool.communicate(timeout=60)
    assert tool.returncode == 0, said
    assert_nothing_is_left(tool, tmp_path)

    record = json.loads((tmp_path / "hop.json").read_text())
    assert {"date", "command", "hardware", "versions", "settings"} <= set(record)
    assert "bench_hop.py --size 4KiB" in record["command"]
    assert record["hardware"]["cores"] >= 1
    found = {(one["size"], one["contender"]): one for one in record["results"]}
    names = {"runpipe", "zeromq", "pickle queue", "torch queue"}
    assert {(size, name) for size in (SMALL, ALONE) for name in names} <= set(found)
    for one in record["results"]:
        assert len(one["runs"]) == 2
        assert all(run["items"] >= 8 for run in one["runs"])
        assert 0 < one["p50_us"] <= one["p99_us"]
        assert one["gb_per_s"] == pytest.approx(one["items_per_s"] * one["size"] / 1e9)
    assert found[SMALL, "runpipe"]["copies"] == 0
    assert found[SMALL, "runpipe"]["ours_is"] == 1.0
    assert [target["wanted"] for target in record["targets"]] == [60.0, 500.0]
    for target in record["targets"]:
        assert target["passed"] == (target["measured"] <= target["wanted"])
        assert f"{'pass' if target['passed'] else 'MISS'}  {target['what']}" in printed
    if ("ray" not in record["versions"]) or record["versions"]["ray"] == "not installed":
        assert "ray is not installed" in printed


@pytest.mark.slow
@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_it_takes_its_processes_with_it(project, tmp_path, signum):
    arguments = ("--contender", "pickle queue", "--seconds", 60)
    with start(project, tmp_path, *arguments) as tool:
        deadline = time.monotonic() + 30.0
        while not list(tmp_path.glob("rp-*/consumer")):
            assert time.monotonic() < deadline, "it never began"
            time.sleep(0.01)
        os.killpg(tool.pid, signum)
        _printed, said = tool.communicate(timeout=30)
    assert tool.returncode == 128 + signum
    assert "Traceback" not in said
    assert_nothing_is_left(tool, tmp_path)


@pytest.mark.slow
def test_its_processes_end_with_a_killed_benchmark(project, tmp_path):
    with start(project, tmp_path, "--contender", "runpipe", "--seconds", 60) as tool:
        deadline = time.monotonic() + 30.0
        while not list(tmp_path.glob("rp-*/consumer")):
            assert time.monotonic() < deadline, "it never began"
            time.sleep(0.01)
        tool.kill()
        tool.communicate()
    deadline = time.monotonic() + 2.0
    while session(tool.pid):
        assert time.monotonic() < deadline, f"left {session(tool.pid)} behind"
        time.sleep(0.01)


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("--size", "4MB"), "'4MB' is no size such as 64KiB"),
        (("--size", "12"), "'12' is no size such as 64KiB, a multiple of 8 bytes"),
        (("--size", "900000GiB"), "MiB are free"),
        (("--contender", "socket"), "'socket' is not one of"),
    ],
)
def test_a_mistake_is_exit_2(project, tmp_path, arguments, complaint):
    with start(project, tmp_path, *arguments) as tool:
        _printed, said = tool.communicate(timeout=30)
    assert tool.returncode == 2
    assert complaint in said


def test_help_says_what_is_measured(project, tmp_path):
    with start(project, tmp_path, "--help") as tool:
        printed, _said = tool.communicate(timeout=30)
    assert tool.returncode == 0
    for word in ("--size", "--contender", "--seconds", "--repetitions", "--json"):
        assert word in printed
