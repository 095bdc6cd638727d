"""The page as text: what is in it, what is not, and what becomes of files that are not whole."""

import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from stages.base import UserError
from stages.benchmark.pages import main, write_pages
from stages.benchmark.pages_charts import histogram, spark, whisker
from stages.benchmark.pages_run import work_done
from stages.benchmark.pages_text import html_of, nbytes, said, seconds
from stages.benchmark.pages_timeline import read_lanes, timeline
from tests.stages.benchmark.judged import (
    HOSTILE,
    group_of,
    member,
    mixed_groups,
    save,
)
from tests.stages.benchmark.judged import (
    said as answers,
)
from tests.stages.benchmark.page_runs import (
    edits_lines,
    plain_report,
    report_in_sections,
    trace_of,
    worker,
    write_run,
)

VOID = {"meta", "img", "input", "br"}


class Reader(HTMLParser):
    """Collects tags, attributes and texts; fails at a tag that closes another."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.texts = [], [], []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)

    def all(self, tag):
        return [attributes for name, attributes in self.tags if name == tag]

    @property
    def text(self):
        return " ".join(" ".join(self.texts).split())


def make(results, **options):
    page = results.with_name("report.html")
    chosen = {"run_report": None, "trace": None, "images": results.with_name("images")} | options
    write_pages(results, page, **chosen)
    return Reader(page.read_text("utf-8"))


@pytest.fixture
def results(tmp_path):
    return save(tmp_path, mixed_groups(), steps=50, true_cfg_scale=4.0)


@pytest.mark.parametrize("report", [plain_report(), report_in_sections()], ids=["one", "sections"])
def test_a_page_has_everything_and_names_nothing_outside(tmp_path, results, report):
    run_report, trace = write_run(tmp_path / "run", report)
    page = make(results, run_report=run_report, trace=trace)
    ids = {attributes.get("id") for _, attributes in page.tags}
    assert {"scores", "distribution", "unscored", "run", "repeat", "samples"} <= ids
    assert {"histogram", "timeline", "cards"} <= ids
    for _, attributes in page.tags:
        for key in ("src", "href", "xlink:href", "action", "data", "poster"):
            assert re.match(r"#|data:image/webp;base64,", attributes.get(key) or "#")
    assert not {"link", "iframe", "object", "embed", "base"} & {tag for tag, _ in page.tags}
    assert len(page.all("img")) == 2 * 9
    assert all(image["alt"] for image in page.all("img"))
    for told in ("edit/0", "57.0 GiB", "97 %", "1 min 36 s", "NVIDIA H200", "2.13.0", "ab" * 32):
        assert told in page.text


def test_a_page_needs_no_run_report(results):
    page = make(results)
    ids = {attributes.get("id") for _, attributes in page.tags}
    assert {"scores", "histogram", "unscored", "samples", "repeat"} <= ids
    assert "run" not in ids
    assert "prompts_sha256" in page.text


def test_what_others_wrote_is_text_and_nothing_else(tmp_path, results):
    results.with_name("edits.jsonl").write_text(edits_lines(["p1"]))
    run_report, trace = write_run(tmp_path / "run", plain_report(), trace_of(hostile=HOSTILE))
    page = make(results, run_report=run_report, trace=trace)
    assert len(page.all("script")) == 1
    assert not any(key.startswith("on") for _, attributes in page.tags for key in attributes)
    assert page.text.count("document.title='pwned'") >= 5  # the instruction, answers, reasons
    raw = results.with_name("report.html").read_text("utf-8")
    assert "\u202e" not in raw
    assert "<script>document" not in raw


def test_every_sample_is_shown_with_its_score_or_its_reason(results):
    page = make(results)
    cards = page.all("article")
    assert len(cards) == 10
    scores = [float(card["data-score"]) for card in cards if card["data-score"]]
    assert scores == [2, 4, 6, 7.25, 8.5, 9]
    assert sum(not card["data-score"] for card in cards) == 4
    assert "no score could be read from answer 1, also when asked again" in page.text
    assert "the judge, asked again" in page.text
    assert "the judge's endpoint timed out after 30 s" in page.text


def test_a_run_without_a_score_has_a_page_without_a_number(tmp_path):
    meta = group_of((member("a", state="failed", reason="out of memory"), answers()))
    page = make(save(tmp_path, [meta]))
    (big,) = re.findall(r"<strong>(.*?)</strong>", (tmp_path / "out/report.html").read_text())[:1]
    assert big == "&ndash;"
    assert "out of memory" in page.text
    assert "Best category" not in page.text


def test_each_table_has_its_own_samples(tmp_path):
    reply = '{"score": [8, 8]}'
    groups = [
        group_of(
            (member("a", "text_change", tags=("intersection",)), answers(reply, reply)),
            (member("b", "text_change"), answers('{"score": [2, 2]}', reply)),
            (member("c", "ps_human", language="cn"), answers(reply, reply)),
        )
    ]
    page = make(save(tmp_path, groups, protocol="gedit"))
    captions = [text for text in page.texts if " by category; overall: " in text]
    assert len(captions) == 3 * 3
    assert "O, en, intersection by category; overall: mean of the groups' means" in captions
    raw = (tmp_path / "out/report.html").read_text()
    (shared,) = re.findall(r"O, en, intersection by category.*?</table>", raw)
    assert "in tenths: 0, 0, 0, 0, 0, 0, 0, 0, 1, 0" in shared


def test_a_sample_without_a_preview_shows_the_edit_itself(results):
    results.with_name("previews.jsonl").unlink()
    sample = next(each for each in json.loads(results.read_text())["samples"] if each["image"])
    path = results.with_name("images") / sample["image"]
    path.parent.mkdir(parents=True)
    Image.fromarray(np.zeros((40, 60, 3), np.uint8)).save(path)
    assert len(make(results).all("img")) == 1
    path.write_bytes(b"no picture")
    assert len(make(results).all("img")) == 0


def test_a_picture_outside_its_folder_or_of_another_kind_is_not_shown(tmp_path, results):
    Image.fromarray(np.zeros((40, 60, 3), np.uint8)).save(tmp_path / "secret.png")
    found = json.loads(results.read_text())
    for sample in found["samples"]:
        sample["image"] = "../../secret.png"
    results.write_text(json.dumps(found))
    lines = [
        {"id": "p1", "source": "http://example.com/x.png", "edited": 'data:image/png;base64,A"x'},
        {"id": "p2", "source": "data:text/html;base64,AAAA", "edited": "javascript:alert(1)"},
    ]
    previews = results.with_name("previews.jsonl")
    previews.write_text("".join(json.dumps(line) + "\n" for line in lines))
    results.with_name("images").mkdir()
    assert make(results).all("img") == []


@pytest.mark.parametrize(
    ("name", "content", "why"),
    [
        ("results.json", b"{", "is no JSON"),
        ("results.json", b"[]", "no results of format 1"),
        ("results.json", b'{"format": 2}', "no results of format 1"),
        ("previews.jsonl", b'{"id": 1}\n{"no', "is damaged"),
        ("previews.jsonl", b"3\n", "is damaged"),
        ("edits.jsonl", b"{", "is damaged"),
        ("edits.jsonl", b"\xff", "is damaged"),
        ("report.json", b"no", "is no JSON"),
        ("trace.json", b'{"traceEvents": [{"ph": "X", "cat": "run"', "is no trace"),
        ("trace.json", b'{"traceEvents": [3]}', "is no trace"),
        ("trace.json", b'{"traceEvents": [{"ph": "X", "cat": "run", "ts": "a"}]}', "is no trace"),
    ],
)
def test_a_file_that_is_not_whole_is_named_and_no_page_is_made(
    tmp_path, results, name, content, why
):
    run_report, trace = write_run(tmp_path / "run", plain_report())
    folder = run_report.parent if name in ("report.json", "trace.json") else results.parent
    (folder / name).write_bytes(content)
    with pytest.raises(UserError, match=f"{re.escape(name)}: {why}"):
        make(results, run_report=run_report, trace=trace)
    assert not results.with_name("report.html").exists()


def test_the_command_finds_what_lies_beside(tmp_path, results, capsys):
    run_report, _ = write_run(tmp_path / "run", plain_report())
    main([str(results), "--run-report", str(run_report)])
    assert 'id="timeline"' in results.with_name("report.html").read_text()
    with pytest.raises(SystemExit) as ended:
        main([str(tmp_path / "none.json")])
    assert ended.value.code == 2
    assert "none.json: cannot be read: No such file or directory" in capsys.readouterr().err


def test_a_timeline_has_a_row_a_worker_gpus_first(tmp_path):
    _, trace = write_run(tmp_path, plain_report())
    lanes = read_lanes(trace)
    assert [f"{lane.device} {lane.worker}".strip() for lane in lanes] == [
        "cuda:0 edit/0",
        "cuda:0 score/0",
        "cuda:1 edit/1",
        "cpu save/0",
        "edit/0 cuda:0, copies in",
        "run",
    ]
    edit = lanes[2]
    assert len(edit.runs) == 4  # of both incarnations
    assert [each.failed for each in edit.runs] == [False, True, False, False]
    drawn = timeline(lanes)
    assert drawn.count('class="broken"') == 1
    assert drawn.count('class="stage0"') == 7
    assert "copies" not in drawn  # nothing ran there


def test_slices_too_short_to_be_seen_are_drawn_as_one(tmp_path):
    events = [
        {"ph": "M", "name": "thread_name", "pid": 1, "tid": 1, "args": {"name": "edit/0 cpu"}}
    ]
    events += [
        {"ph": "X", "cat": "run", "name": "edit", "pid": 1, "tid": 1, "ts": 10 * at, "dur": 9}
        for at in range(20_000)
    ]
    _, trace = write_run(tmp_path, plain_report(), {"traceEvents": events})
    (lane,) = read_lanes(trace)
    assert lane.busy_us == 180_000
    drawn = timeline([lane])
    assert drawn.count("<rect") == 2
    assert "edit x 20000" in drawn
    assert "90% of the time" in drawn


def test_a_trace_with_nothing_in_it_says_so(tmp_path):
    _, trace = write_run(tmp_path, plain_report(), {"traceEvents": []})
    assert "nothing to draw" in timeline(read_lanes(trace))


def test_sustained_work_is_of_the_editors_alone():
    edits = [{"reason": None, "steps": 50, "passes": 100, "tflop": 700.0}] * 4
    edits += [{"reason": "failed", "steps": 50, "passes": 100, "tflop": 700.0}]
    told = dict(work_done(report_in_sections(), edits))
    assert (told["edits"], told["denoising steps"], told["transformer passes"]) == (4, 200, 400)
    assert told["work"] == "2,800 TFLOP"
    assert told["sustained while editing"] == "20.6 TFLOP/s a worker"
    assert told["sustained over the section"] == "35 TFLOP/s in all"


def test_nothing_is_said_to_be_sustained_where_it_is_not_known():
    edits = [{"reason": None, "steps": 50, "passes": 100, "tflop": 700.0}]
    resumed = plain_report(resumed={"items": 3, "runs": 1})
    assert "not known" in dict(work_done(resumed, edits))["sustained"]
    others = plain_report(workers=[worker("score/0", "score", "cuda:0", 9.0)])
    assert not any("sustained" in name for name, _ in work_done(others, edits))
    assert list(work_done(plain_report(), [])) == []


def test_charts_count_every_score_once():
    scores = [0, 0.2, 5, 9.99, 10, 10]
    told = re.findall(r"<title>[\d.]+ to [\d.]+: (\d+)</title>", histogram(scores, 0, 10, "score"))
    assert (len(told), sum(map(int, told))) == (20, 6)
    assert "in tenths: 2, 0, 0, 0, 0, 1, 0, 0, 0, 3" in spark(scores, 0, 10)
    assert "Histogram of O, 0 samples" in histogram([], 1, 5, "O")
    assert whisker(None, None, 0, 10) == ""
    assert "mean 5.00, interval 4.00 to 6.00" in whisker(5.0, (4.0, 6.0), 0, 10)


def test_texts_are_made_harmless_and_numbers_readable():
    assert said("<b>&\"'\x00\ud800\u202e") == "&lt;b&gt;&amp;&quot;&#x27;\ufffd\ufffd"
    shown = [html_of(value) for value in (None, "", 1.234, 12345, True, "<")]
    assert shown[2:] == ["1.23", "12,345", "yes", "&lt;"]
    assert [seconds(value) for value in (4.24, 200, 7500)] == ["4.2 s", "3 min 20 s", "2 h 5 min"]
    assert [nbytes(value) for value in (12, 57 << 30)] == ["12 B", "57.0 GiB"]
