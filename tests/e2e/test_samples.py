"""Sample sets through real processes, to durable edits, with an editor that is none."""

import json
from contextlib import suppress

import pytest

from runtime.config import parse_config
from runtime.errors import RunIncomplete
from runtime.pipeline import Pipeline
from runtime.report import load_report
from stages.benchmark.facts import sample_seed
from stages.benchmark.pictures import read_pixels
from tests.stages.benchmark.sets import AREA, png, record, write_json


def config_of(source=(), editor=(), **run):
    use = {
        "read": {
            "use": "stages.benchmark.read:ReadSamples",
            "with": {"area": AREA, **dict(source)},
        },
        "edit": {"use": "tests.stages.benchmark.editing:Tint", "with": dict(editor), "replicas": 2},
        "save": {"use": "stages.benchmark.save:SaveEdits", "replicas": 2},
    }
    return parse_config({"pipeline": "samples", "stages": use, "run": run})


def run(config, given, folder):
    (folder / "out").mkdir(parents=True)
    with Pipeline(config) as pipeline, suppress(RunIncomplete):
        pipeline.run(input=given, output=folder / "out/edits.jsonl", run_dir=folder / "run")
    return load_report(folder / "run/report.json")


def lines_of(folder):
    lines = [json.loads(line) for line in (folder / "out/edits.jsonl").read_text().splitlines()]
    return {line["id"]: line for line in lines}


def colours_of(folder):
    lines = lines_of(folder).values()
    return {
        line["id"]: int(read_pixels(folder / "out" / line["image"])[0, 0, 0])
        for line in lines
        if line["image"]
    }


def test_a_set_with_bad_samples_is_edited_but_for_these(tmp_path):
    records = [record(f"Do {at}", png(value=at)) for at in range(6)]
    records[1]["src_img_b64"] = None
    records[2] = record(image=png()[:60])
    given = write_json(tmp_path / "set.json", records)
    report = run(config_of(editor={"refuse": "physical-0004"}), given, tmp_path)
    assert (report.status, report.units.done, report.units.failed) == ("failed", 3, 3)
    lines = lines_of(tmp_path)
    assert {name for name, line in lines.items() if line["reason"]} == {
        "physical-0001",
        "physical-0002",
        "physical-0004",
    }
    assert "record 2): no field `src_img_b64`" in lines["physical-0001"]["reason"]
    assert "its image cannot be decoded" in lines["physical-0002"]["reason"]
    assert "physical-0004 is refused" in lines["physical-0004"]["reason"]
    reasons = " ".join(failure.reason for failure in report.failures)
    assert "no field `src_img_b64`" in reasons
    colours = {f"physical-{at:04}": None for at in (0, 3, 5)}
    assert colours_of(tmp_path) == {name: sample_seed(0, name) % 251 for name in colours}, (
        "by id and seed alone"
    )


def test_a_set_that_breaks_off_is_edited_as_far_as_it_goes_and_the_run_has_failed(tmp_path):
    given = write_json(tmp_path / "set.json", [record(), record(), record()])
    given.write_text(given.read_text()[:-90])
    report = run(config_of(), given, tmp_path)
    assert (report.status, report.units.done) == ("failed", 2)
    assert any("breaks off after 2 samples" in failure.reason for failure in report.failures)
    assert len(lines_of(tmp_path)) == 2


def test_workers_killed_on_the_way_change_nothing(tmp_path, project):
    given = project / "configs/edit_score"
    assert run(config_of(), given, tmp_path / "whole").status == "done"

    folder = tmp_path / "killed"
    report = run(config_of(editor={"kill": str(folder / "run")}), given, folder)
    restarted = {worker.name for worker in report.workers if worker.restarts}
    assert restarted >= {"read/0", "save/1"}
    assert len(restarted) == 3, "and an editor"
    assert report.status == "done"
    assert colours_of(tmp_path / "killed") == colours_of(tmp_path / "whole")
    assert len(colours_of(tmp_path / "whole")) == 12


@pytest.mark.parametrize("categories", [["causal"], ["\u56e0\u679c"]])
def test_categories_and_limit_choose_samples_and_change_none(tmp_path, project, categories):
    given = project / "configs/edit_score"
    report = run(config_of({"categories": categories, "limit": 1}), given, tmp_path)
    assert (report.status, report.units.done) == ("done", 1)
    assert colours_of(tmp_path) == {"causal-01": sample_seed(0, "causal-01") % 251}
