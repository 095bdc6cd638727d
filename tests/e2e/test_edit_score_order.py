"""What a sample becomes depends on itself and the run's seed: not on what else is asked for, who
edits it, in which order, or how often that was begun."""

import json
import os
import shutil
import signal
from pathlib import Path

import pytest

from runtime.journal import Journal
from tests.e2e.conftest import command_line
from tests.e2e.edited import begun, edits, images, results, told, write_config, write_set
from tests.waiting import wait_until


@pytest.fixture(scope="module")
def whole(project, tmp_path_factory):
    """Return the output of an undisturbed run of the cheap pipeline on ten samples."""
    folder = tmp_path_factory.mktemp("whole")
    write_set(folder / "set", 10)
    write_config(folder / "c.yaml")
    asked = ("--config", "c.yaml", "--input", "set", "--output", "out", "--run-dir", "run")
    ended = command_line(asked, project=project, cwd=folder)
    assert ended.returncode == 0, ended.stderr
    return folder / "out"


@pytest.fixture
def run(runpipe, whole, tmp_path):
    """Run the cheap pipeline on the same set, changed; return the output folder."""

    def begin(*arguments, name="out", **changes):
        write_config(tmp_path / "c.yaml", **changes)
        ended = runpipe(
            *("--config", "c.yaml", "--input", whole.parent / "set", "--output", name),
            *("--run-dir", f"{name}.run", *arguments),
        )
        assert ended.returncode == 0, ended.stderr
        return tmp_path / name

    return begin


def said(output):
    """Return what the judge said of each sample; it says in which row of how many, too."""
    return {name: (sample["answers"], sample["scores"]) for name, sample in told(output).items()}


def some_of(all_of, names):
    return {name: all_of[name] for name in names}


def test_a_limit_does_not_regroup(run, whole):
    assert len({answers for (answers,), _scores in said(whole).values()}) == 10, "all unlike"
    few = run("--limit", "4")
    assert said(few) == some_of(said(whole), ["s06", "s07", "s08", "s09"])
    expected = {path: told for path, told in images(whole).items() if path[-7:-4] in said(few)}
    assert images(few) == expected


def test_categories_do_not_regroup(run, whole):
    two = run("--categories", "causal", "Physical")
    assert set(edits(two)) == {"s00", "s02", "s03", "s05", "s06", "s08", "s09"}
    assert said(two) == some_of(said(whole), edits(two))
    assert images(two) == {p: told for p, told in images(whole).items() if "environ" not in p}


@pytest.mark.parametrize(
    "changes",
    [
        {"edit": {"replicas": 3, "with": {"delay_s": 0.02}}, "save": {"replicas": 2}},
        {"edit": {"replicas": 3, "assign": "round_robin"}, "score": {"replicas": 2}},
        {"run": {"residency": "phased"}, "collect": {"replicas": 2}},
    ],
    ids=["replicas", "round_robin", "phased"],
)
def test_where_and_when_it_is_done_changes_nothing(run, whole, changes):
    other = run(**changes)
    assert results(other) == results(whole)
    assert images(other) == images(whole)


def test_another_seed_is_another_edit(run, whole):
    assert not set(images(run("--seed", "1")).values()) & set(images(whole).values())


def test_a_worker_killed_in_an_edit_is_replaced_and_nothing_is_done_twice(run, whole, tmp_path):
    log = tmp_path / "log"
    killed = run(edit={"with": {"kill_at": "s04", "log": str(log)}})
    assert results(killed) == results(whole)
    assert images(killed) == images(whole)
    names = [name for name, _pid in begun(log)]
    assert {*names} == {*told(whole)}
    assert names.count("s04") == 2
    assert len(names) <= 12, "beside it, at most one that lay behind it"
    restarted = json.loads((tmp_path / "out.run/report.json").read_text())["workers"]
    assert {w["name"]: w["restarts"] for w in restarted if w["restarts"]} == {"edit/0": 1}


@pytest.mark.parametrize("who", ["worker", "supervisor"])
def test_who_is_killed_in_the_middle_of_an_edit_changes_nothing(
    start, runpipe, whole, tmp_path, who
):
    """The editor holds at a sample in the middle, and is alive there when the signal comes."""
    log, out = tmp_path / "log", tmp_path / "out"
    write_config(tmp_path / "c.yaml", edit={"with": {"hold_at": "s03", "log": str(log)}})
    asked = ("--config", "c.yaml", "--input", whole.parent / "set", "--output", "out")
    process = start(*asked, "--run-dir", "run")
    wait_until(lambda: log.exists() and "s03" in dict(begun(log)), timeout_s=60)
    pid = json.loads((tmp_path / "run/workers.json").read_text())["edit/0"]
    assert dict(begun(log))["s03"] == pid
    done = wait_durable(tmp_path / "run/edits", len(begun(log)) - 1)
    os.kill(pid if who == "worker" else process.pid, signal.SIGKILL)
    wait_until(lambda: not Path(f"/proc/{pid}").exists())  # a worker goes with its supervisor
    before = len(begun(log))
    (tmp_path / "go").touch()
    assert process.wait(timeout=60) == (0 if who == "worker" else -signal.SIGKILL)
    if who == "supervisor":
        resumed = runpipe("--resume", "run")
        assert resumed.returncode == 0, resumed.stderr
    again = [name for name, _pid in begun(log)][before:]
    assert sorted(again) == sorted({*told(whole)} - done), "each once, and nothing durable"
    assert images(out) == images(whole)
    for name in ("results.json", "report.md", "scores.jsonl", "previews.jsonl", "edits.jsonl"):
        assert (out / name).read_bytes() == (whole / name).read_bytes(), name


def test_all_workers_but_the_editor_killed_at_once_change_nothing(start, whole, tmp_path):
    log, out = tmp_path / "log", tmp_path / "out"
    write_config(tmp_path / "c.yaml", edit={"with": {"hold_at": "s03", "log": str(log)}})
    asked = ("--config", "c.yaml", "--input", whole.parent / "set", "--output", "out")
    process = start(*asked, "--run-dir", "run")
    wait_until(lambda: log.exists() and "s03" in dict(begun(log)), timeout_s=60)
    done = wait_durable(tmp_path / "run/edits", len(begun(log)) - 1)
    before = len(begun(log))
    pids = json.loads((tmp_path / "run/workers.json").read_text())
    others = {name for name in pids if name != "edit/0"}
    for name in others:
        os.kill(pids[name], signal.SIGKILL)
    wait_until(lambda: not any(Path(f"/proc/{pids[name]}").exists() for name in others))
    (tmp_path / "go").touch()
    assert process.wait(timeout=60) == 0, process.stderr.read()
    assert not done & {name for name, _pid in begun(log)[before:]}
    assert results(out) == results(whole)
    assert images(out) == images(whole)
    told = json.loads((tmp_path / "run/report.json").read_text())["workers"]
    assert {worker["name"] for worker in told if worker["restarts"]} == others


def wait_durable(section, count):
    """Wait until so many samples are in a section's journal; return their ids."""
    ids = [sample["id"] for sample in json.loads((section / "samples.json").read_text())]

    def durable():
        copy = section.parent / "copy"  # what is in use is locked
        shutil.rmtree(copy, ignore_errors=True)
        copy.mkdir()
        for path in section.glob("journal.sqlite*"):
            shutil.copy(path, copy)
        with Journal.open(copy / "journal.sqlite") as journal:
            return {ids[item] for item in journal.recorded()}

    wait_until(lambda: len(durable()) == count)
    return durable()
