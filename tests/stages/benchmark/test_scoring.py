"""From a published set to reports, with what edits and judges played: formats fit each other."""

import csv
import json
from dataclasses import replace

import pytest

from stages.benchmark.collect import CollectEdits
from stages.benchmark.facts import Replies
from stages.benchmark.pages import write_pages
from stages.benchmark.protocols import protocol
from stages.benchmark.scores import SaveScores
from tests.stages.benchmark.editing import edit_all
from tests.stages.benchmark.sets import AREA, IMAGES, SETS, item_of, job_of, outputs_of

REPLY = {
    "origin": "Reason: fine.\nScore: 7",
    "gedit": '{"score": [8, 6], "reasoning": "fine"}',
    "imgedit": "Instruction: 4\nAppearance: 4\nIntegrity: 4",
}
PROTOCOL_OF = {"origin": "origin", "re-edit": "origin", "gedit": "gedit", "imgedit": "imgedit"}


def judged(rules, meta):
    """Return a group's meta with an answer to every question that is asked."""
    replies = []
    for each in meta.members:
        asked = rules.questions(each.group, each.language, each.instruction)
        texts = (REPLY[rules.name],) * len(asked)
        replies.append(Replies(texts=texts, retries=("",) * len(asked)))
    return replace(meta, replies=tuple(replies))


def score(job, rules, data_format, **how):
    """Collect and score all groups of a job; return its facts."""
    common = {"protocol": rules.name, "model_name": "m"}
    images = IMAGES.get(data_format, "")
    source = CollectEdits(area=AREA, data_format=data_format, images=images, **common, **how)
    facts, sink = source.open(job), SaveScores(judge="j", **common)
    sink.open(facts)
    outputs = outputs_of(source, facts)
    for at, key in enumerate(source.keys()):
        meta = judged(rules, source.read(key, outputs))
        sink.write(replace(item_of(at), meta=meta), outputs, meta)
    sink.finish(range(len(source.keys())))
    return facts


@pytest.mark.parametrize("data_format", PROTOCOL_OF)
def test_a_published_set_is_edited_scored_and_shown(tmp_path, data_format):
    rules = protocol(PROTOCOL_OF[data_format])
    editing = job_of(SETS[data_format], tmp_path)
    source, sink, _ = edit_all(
        editing, data_format=data_format, protocol=rules.name, model_name="m"
    )
    sink.finish(range(len(source.keys())))
    job = job_of(SETS[data_format], tmp_path, "score", earlier=editing.work_dir)
    facts = score(job, rules, data_format)
    folder = tmp_path / "out"
    results = json.loads((folder / "results.json").read_text())
    assert results["counts"]["samples"] == facts.num_samples
    assert results["counts"]["scored"] + results["counts"]["failed"] == facts.num_samples
    assert results["counts"]["scored"] > 0
    for sample in results["samples"]:
        assert bool(sample["image"]) == (sample["state"] == "scored")
        assert not sample["image"] or (folder / "images" / sample["image"]).is_file()
    page = folder / "report.html"
    write_pages(
        folder / "results.json", page, run_report=None, trace=None, images=folder / "images"
    )
    assert page.read_text().count("<img ") == 2 * results["counts"]["scored"]


def test_published_tools_find_the_images_that_their_tables_name(tmp_path):
    editing = job_of(SETS["gedit"], tmp_path)
    source, sink, _ = edit_all(editing, data_format="gedit", protocol="gedit", model_name="m")
    sink.finish(range(len(source.keys())))
    job = job_of(SETS["gedit"], tmp_path, "score", earlier=editing.work_dir)
    score(job, protocol("gedit"), "gedit")
    tables = list((tmp_path / "out/tables").rglob("*_vie_score.csv"))
    lines = [line for path in tables for line in csv.DictReader(path.read_text().splitlines())]
    assert lines
    assert {line["intersection_exist"] for line in lines} == {"True", "False"}
    for line in lines:
        for key in ("edited_image", "source_image"):
            assert (tmp_path / "out/images" / line[key]).is_file()


def test_a_limit_scores_some_and_names_no_others(tmp_path):
    editing = job_of(SETS["origin"], tmp_path)
    source, sink, _ = edit_all(editing, data_format="origin", model_name="m")
    sink.finish(range(len(source.keys())))
    job = job_of(SETS["origin"], tmp_path, "score", earlier=editing.work_dir)
    facts = score(job, protocol("origin"), "origin", limit=2)
    counts = json.loads((tmp_path / "out/results.json").read_text())["counts"]
    assert facts.num_samples == 2
    assert counts["samples"] == 2 == sum(counts[key] for key in ("scored", "failed"))
    assert counts["lost"] == 0
