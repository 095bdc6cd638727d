import base64
import io
import json
import re
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from stages.base import UserError
from stages.benchmark.protocols import protocol
from stages.benchmark.scores import SaveScores
from stages.benchmark.verdicts import verdicts
from tests.stages.benchmark.judged import (
    HOSTILE,
    SIZE,
    facts_of,
    group_of,
    member,
    mixed_groups,
    put,
    said,
    save,
)

BESIDE = ("report.md", "scores.jsonl", "previews.jsonl", "tables/scores.csv", "results.json")


def read(path):
    return json.loads(path.read_text())


def test_why_a_sample_failed_is_told_also_where_its_category_is_unknown(tmp_path):
    bad = member("line-0007", "", state="failed", reason="it is no JSON")
    results = read(save(tmp_path, [group_of((bad, said()))]))
    assert results["unscored"] == [
        {"id": "line-0007", "category": "", "state": "failed", "reason": "it is no JSON"}
    ]


def test_a_judge_is_named_as_it_calls_itself_unless_a_run_says_otherwise(tmp_path):
    groups = [replace(meta, judge="weights/8b") for meta in mixed_groups()]
    by_itself = read(save(tmp_path / "one", groups, judge=""))
    assert by_itself["metadata"]["judge"] == "weights/8b"
    told = read(save(tmp_path / "two", groups, judge="Qwen3-VL 8B"))
    assert told["metadata"]["judge"] == "Qwen3-VL 8B"


def test_a_sample_has_scores_or_a_reason_and_is_counted_once(tmp_path):
    results = read(save(tmp_path, mixed_groups()))
    samples = {each["id"]: each for each in results["samples"]}
    states = {key: each["state"] for key, each in samples.items()}
    assert states == dict.fromkeys(("p1", "p2", "c1", "c4", "e1", "e2"), "scored") | {
        "p3": "unparsed",
        "p4": "failed",
        "c3": "unjudged",
        "x1": "unjudged",
    }
    assert results["counts"] == {
        "samples": 10,
        "scored": 6,
        "failed": 1,
        "unparsed": 1,
        "unjudged": 2,
        "lost": 0,
    }
    for each in samples.values():
        assert (each["scores"] is None) == (each["state"] != "scored") == bool(each["reason"])
    assert samples["p2"]["scores"] == {"score": 6}
    assert samples["c4"]["group"] == "causal"
    assert "also when asked again" in samples["p3"]["reason"]
    assert samples["c3"]["reason"] == "the judge's endpoint timed out after 30 s"
    assert "no category of the protocol origin" in samples["x1"]["reason"]
    assert {each["id"] for each in results["unscored"]} == {"p3", "p4", "c3", "x1"}


def test_what_a_run_was_not_asked_for_is_in_no_report(tmp_path):
    path = save(tmp_path, mixed_groups())
    assert not [each for each in read(path)["samples"] if each["id"] == "c2"]
    assert read(path)["categories"]["causal"]["score"]["nulls"] == 1
    assert "c2" not in (path.parent / "report.md").read_text()


def test_figures_are_of_what_was_scored_alone(tmp_path):
    results = read(save(tmp_path, mixed_groups()))
    physical = results["categories"]["physical"]["score"]
    assert (physical["count"], physical["nulls"], physical["mean"]) == (2, 2, 7.25)
    assert (physical["median"], physical["min"], physical["max"]) == (7.25, 6, 8.5)
    assert physical["std"] == pytest.approx(1.25)
    scored = [8.5, 6, 2, 4, 9, 7.25]
    assert results["overall"]["score"]["mean"] == pytest.approx(np.mean(scored))
    assert results["best_category"] == {"category": "environmental", "mean": 8.125}
    assert results["worst_category"] == {"category": "causal", "mean": 3}


def test_what_one_must_know_to_compare_is_there(tmp_path):
    path = save(
        tmp_path,
        mixed_groups(),
        judge_revision="abc",
        steps=8,
        true_cfg_scale=4.0,
        resize="none",
        settings={"editor dtype": "bfloat16"},
    )
    metadata = read(path)["metadata"]
    assert metadata["prompts_sha256"] == protocol("origin").prompts_sha256
    assert {key: metadata[key] for key in ("model", "judge", "judge_revision", "seed")} == {
        "model": "edit",
        "judge": "tiny judge",
        "judge_revision": "abc",
        "seed": 7,
    }
    assert (metadata["steps"], metadata["true_cfg_scale"], metadata["resize"]) == (8, 4.0, "none")
    assert metadata["parser_version"] == "origin-1"
    assert metadata["editor dtype"] == "bfloat16"
    assert "bootstrap" in metadata["interval"]


def test_a_report_says_at_what_size_an_edit_was_shown(tmp_path):
    for name, options in (("a", {}), ("b", {"protocol": "gedit"}), ("c", {"resize": "source"})):
        shown = read(save(tmp_path / name, [], **options))["metadata"]["resize"]
        assert shown == {"a": "none", "b": "source", "c": "source"}[name]
    with pytest.raises(UserError, match="resize 'half' is unknown; write protocol, source or none"):
        SaveScores(resize="half")


def test_where_nothing_was_scored_there_is_no_mean(tmp_path):
    groups = [group_of((member("a", state="failed", reason="out of memory"), said()))]
    path = save(tmp_path, groups)
    results = read(path)
    assert results["overall"]["score"]["mean"] is None
    assert results["categories"]["physical"]["score"]["mean"] is None
    assert results["best_category"] is results["worst_category"] is None
    assert "Overall score: **-**" in (path.parent / "report.md").read_text()


def test_a_second_answer_counts_where_one_was_asked_for():
    rules = protocol("gedit")
    first, second = '{"score": [8, 6]}', '{"score": [5, 4]}'
    meta = group_of((member("a", "text_change"), said("?", first, retries=(second, ""))))
    (verdict,) = verdicts(rules, meta, model="m")
    assert verdict.scores["SC"] == 4
    assert verdict.scores["PQ"] == 6
    meta = group_of((member("a", "text_change"), said("?", first, retries=("?", ""))))
    (verdict,) = verdicts(rules, meta, model="m")
    assert (verdict.state, verdict.scores) == ("unparsed", None)
    assert verdict.reason == "no score could be read from answer 1, also when asked again"


def test_answers_that_are_missing_are_no_scores():
    meta = group_of((member("a", "text_change"), said('{"score": [8, 6]}')))
    (verdict,) = verdicts(protocol("gedit"), meta, model="m")
    assert (verdict.state, verdict.reason) == ("unparsed", "1 answers to 2 questions")


def test_a_group_that_was_given_up_is_counted_and_not_scored(tmp_path):
    facts, sink = facts_of(tmp_path, num_samples=10), SaveScores()
    sink.open(facts)
    meta = group_of((member("a"), said("Score: 8")), (member("b", state="failed"), said()))
    assert put(sink, 0, meta, failed="the judge ran out of memory") == 0
    assert put(sink, 1, None, failed="cannot be read") == 0
    sink.finish([0, 1])
    results = read(tmp_path / "out" / "results.json")
    assert results["counts"]["lost"] == 8
    assert results["lost"] == ["cannot be read"]
    assert [each["reason"] for each in results["unscored"]] == [
        "the judge ran out of memory",
        "there is no edited image",
    ]


def test_each_group_is_durable_by_itself_and_counted(tmp_path):
    facts, sink = facts_of(tmp_path), SaveScores()
    sink.open(facts)
    first, second = mixed_groups()
    assert (put(sink, 0, first), put(sink, 1, second)) == (4, 2)
    durable = sink.commit()
    assert [each.items for each in durable] == [(0,), (1,)]
    assert all((tmp_path / "work" / name).is_file() for each in durable for name in each.files)
    assert durable[0].counts == {
        "failed edits": 1,
        "unreadable answers": 1,
        "unjudged edits": 1,
    }
    assert sink.commit() == []
    assert not (tmp_path / "out" / "results.json").exists()


def test_reports_do_not_depend_on_grouping_order_or_how_often_they_were_finished(tmp_path):
    groups = mixed_groups()
    one, other = tmp_path / "one", tmp_path / "other"
    save(one, groups)
    facts = facts_of(other, num_samples=10)
    first = SaveScores(model_name="edit", judge="tiny judge")
    first.open(facts)
    put(first, 1, groups[1])
    put(first, 1, groups[1])  # a second attempt
    resumed = SaveScores(model_name="edit", judge="tiny judge")
    resumed.open(facts)
    put(resumed, 0, groups[0])
    resumed.finish([1, 0])
    resumed.finish([1, 0])  # killed right after it, and asked again
    for name in BESIDE:
        assert (one / "out" / name).read_bytes() == (other / "out" / name).read_bytes()
    assert sorted(each.name for each in (other / "out").rglob(".*")) == []


def test_results_of_others_are_not_written_over(tmp_path):
    path = save(tmp_path, mixed_groups())
    with pytest.raises(UserError, match=r"results\.json: exists already; use --overwrite"):
        SaveScores().open(facts_of(tmp_path, work="another"))
    SaveScores().open(facts_of(tmp_path, work="another", overwrite=True))
    path.unlink()
    path.mkdir()
    with pytest.raises(UserError, match="a folder; name a file"):
        SaveScores().open(facts_of(tmp_path))


def test_an_output_folder_that_is_a_file_is_refused(tmp_path):
    (tmp_path / "out").write_text("")
    with pytest.raises(UserError, match="out: cannot be made"):
        SaveScores().open(facts_of(tmp_path))


def test_a_group_that_is_gone_is_an_error_and_leaves_no_results(tmp_path):
    facts, sink = facts_of(tmp_path), SaveScores()
    sink.open(facts)
    put(sink, 0, mixed_groups()[0])
    with pytest.raises(FileNotFoundError):
        sink.finish([0, 1])
    assert not (tmp_path / "out" / "results.json").exists()


def test_markdown_has_the_shape_of_the_origin_and_nothing_of_others_in_force(tmp_path):
    text = (save(tmp_path, mixed_groups()).parent / "report.md").read_text()
    assert "| category | mean | std | median | min | max | count | nulls | 95 % interval |" in text
    assert re.search(
        r"\| physical \| 7\.250 \| 1\.250 \| 7\.250 \| 6\.000 \| 8\.500 \| 2 \| 2 ", text
    )
    assert "- Best category: environmental (8.125)" in text
    assert "- Samples: 10, of which 6 scored; 1 failed, 1 unparsed, 2 unjudged, 0 lost" in text
    assert "<script" not in text.replace("\\<", "")
    (hostile,) = (line for line in text.splitlines() if line.startswith("| p4"))
    assert len(re.findall(r"(?<!\\)\|", hostile)) == 5  # four cells, whatever the reason says


def test_previews_are_the_pictures_of_their_own_sample(tmp_path):
    path = save(tmp_path, mixed_groups())
    lines = [json.loads(line) for line in (path.parent / "previews.jsonl").read_text().splitlines()]
    shown = {each["id"]: each for each in lines}
    assert set(shown) == {"p1", "p2", "p3", "c1", "c3", "c4", "e1", "e2", "x1"}
    for sample_id, row in (("p1", 0), ("c1", 4)):
        content = base64.b64decode(
            shown[sample_id]["edited"].removeprefix("data:image/webp;base64,")
        )
        picture = Image.open(io.BytesIO(content))
        assert picture.size == SIZE[::-1]
        wanted = (40, 20 + 25 * row, 230 - 25 * row)
        assert np.abs(np.asarray(picture).mean((0, 1)) - wanted).max() < 8


def test_a_line_a_sample_says_what_the_results_say(tmp_path):
    path = save(tmp_path, mixed_groups())
    lines = (path.parent / "scores.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == read(path)["samples"]
    assert any(HOSTILE in json.loads(line)["instruction"] for line in lines)
