"""Edit and score on the command line, through the real classes of diffusers and transformers."""

import json
import os
import signal

import pytest

from tests.e2e.conftest import command_line
from tests.e2e.edited import edits, images, results, told
from tests.waiting import wait_until

# The smallest that is whole: an edit has two passes of each of two steps.
TINY = ("--config", "edit_score_tiny", "--set", "samples.area=4096")


@pytest.fixture(scope="module")
def whole(project, tmp_path_factory):
    """Run two of the samples rendered here; return finished process and output folder."""
    folder = tmp_path_factory.mktemp("tiny")
    asked = (*TINY, "--limit", "2", "--output", "out", "--run-dir", "run")
    ended = command_line(asked, project=project, cwd=folder)
    assert ended.returncode == 0, ended.stderr
    return ended, folder / "out"


def test_a_tiny_run_leaves_images_lists_and_reports(whole):
    ended, out = whole
    assert ended.stdout.startswith("2 samples in ")
    assert set(edits(out)) == {"physical-01", "physical-02"}
    for name, line in edits(out).items():
        assert line["image"] == f"images/tiny/physical/{name}.png"
        assert (out / line["image"]).read_bytes().startswith(b"\x89PNG")
        assert (line["reason"], line["steps"], line["passes"]) == (None, 2, 4)
    found = results(out)
    assert found["counts"]["scored"] == 2
    assert found["overall"]["score"]["count"] == 2
    assert found["metadata"]["judge"] == "random:0:tiny"
    assert all(sample["answers"][0] for sample in found["samples"])
    assert "| physical | " in (out / "report.md").read_text()
    assert "physical-02" in (out / "report.html").read_text()
    report = json.loads((out.parent / "run/report.json").read_text())
    assert report["residency"]["mode"] == "resident"
    assert list(report["sections"]) == ["edits", "results"]


def test_edits_that_exist_are_scored_by_themselves(whole, runpipe, tmp_path):
    """Also those that others made, in the same layout; one that is missing has no score."""
    _ended, out = whole
    for path in ("physical-01", "physical-02"):
        place = tmp_path / f"theirs/images/tiny/physical/{path}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes((out / f"images/tiny/physical/{path}.png").read_bytes())
    again = runpipe(
        *(*TINY, "--limit", "3", "--only", "results"), *("--output", "theirs", "--run-dir", "run")
    )
    assert again.returncode == 0, again.stderr
    found = told(tmp_path / "theirs")
    assert {name: found[name] for name in told(out)} == told(out)
    assert found["physical-03"]["state"] == "failed"
    assert found["physical-03"]["scores"] is None
    assert "No such file" in found["physical-03"]["reason"]


@pytest.mark.nightly
@pytest.mark.parametrize(
    "changes",
    [
        ("--limit", "2", "--set", "stages.edit.replicas=2"),
        ("--categories", "physical", "--set", "run.residency=phased"),
    ],
    ids=["replicas", "neighbours and phases"],
)
def test_a_sample_is_edited_and_judged_alike_whatever_else_is(whole, runpipe, tmp_path, changes):
    _ended, out = whole
    other = runpipe(*TINY, *changes, "--output", "other", "--run-dir", "run")
    assert other.returncode == 0, other.stderr
    found = told(tmp_path / "other")
    assert {name: found[name] for name in told(out)} == told(out)
    assert images(tmp_path / "other").items() >= images(out).items()


@pytest.mark.nightly
def test_edits_alone_then_scores_alone_are_what_both_at_once_are(whole, runpipe, tmp_path):
    _ended, out = whole
    asked = (*TINY, "--limit", "2", "--output", "apart")
    edited = runpipe(*asked, "--only", "edits", "--run-dir", "run.edits")
    assert edited.returncode == 0, edited.stderr
    assert not (tmp_path / "apart/results.json").exists()
    assert images(tmp_path / "apart") == images(out)
    scored = runpipe(*asked, "--only", "results", "--run-dir", "run.results")
    assert scored.returncode == 0, scored.stderr
    assert results(tmp_path / "apart") == results(out)
    assert (tmp_path / "apart/report.html").exists()


@pytest.mark.nightly
def test_an_editor_killed_between_two_edits_leaves_the_same_report(whole, start, tmp_path):
    _ended, out = whole
    process = start(*TINY, "--limit", "2", "--output", "other", "--run-dir", "run")
    stored = tmp_path / "run/edits/edits"
    wait_until(lambda: list(stored.glob("*.json")), timeout_s=120)
    os.kill(json.loads((tmp_path / "run/workers.json").read_text())["edit/0"], signal.SIGKILL)
    _out, said = process.communicate(timeout=120)
    assert process.returncode == 0, said
    for name in ("results.json", "report.md", "edits.jsonl"):
        assert (tmp_path / "other" / name).read_bytes() == (out / name).read_bytes()
    assert images(tmp_path / "other") == images(out)
    told_of = json.loads((tmp_path / "run/report.json").read_text())["workers"]
    assert {one["name"] for one in told_of if one["restarts"]} == {"edit/0"}
