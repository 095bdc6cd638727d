"""Bad input on the command line: a clear error, or a sample that failed while the rest goes on."""

import json
import os
import socket
import socketserver
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler

import pytest

from tests.e2e.edited import edits, images, results, told, write_config, write_set
from tests.stages.benchmark.sets import png, record, write_json


@pytest.fixture
def run(runpipe, tmp_path):
    """Run the cheap pipeline on a set; return the finished process and the output folder."""

    def begin(given, *arguments, **changes):
        write_config(tmp_path / "c.yaml", **changes)
        ended = runpipe(
            *("--config", "c.yaml", "--input", given, "--output", "out", "--run-dir", "run"),
            *arguments,
        )
        assert "Traceback" not in ended.stderr
        return ended, tmp_path / "out"

    return begin


def unscored(output):
    """Return why each sample that has no score has none, by id."""
    every = told(output)
    for sample in every.values():
        assert (sample["scores"] is None) == (sample["state"] != "scored")
    found = {row["id"]: (row["state"], row["reason"]) for row in results(output)["unscored"]}
    assert set(found) == {name for name, sample in every.items() if sample["state"] != "scored"}
    return found


# --- an editor that fails ---


def test_a_failed_edit_is_never_scored_and_says_why(run, tmp_path):
    given = write_set(tmp_path / "set", 5)
    ended, out = run(given, edit={"with": {"refuse": ["s01"]}})
    assert ended.returncode == 1
    assert "runpipe: 1 of 5 items failed; stage edit failed" in ended.stderr.splitlines()[-1]
    ((name, (state, reason)),) = unscored(out).items()
    assert (name, state) == ("s01", "failed")
    assert "s01 is refused" in reason
    assert told(out)["s01"]["answers"] == []
    assert told(out)["s01"]["image"] == ""
    assert results(out)["counts"]["scored"] == 4
    line = edits(out)["s01"]
    assert (line["image"], "s01 is refused" in line["reason"]) == (None, True)
    assert len(images(out)) == 4
    page = (out / "report.html").read_text()
    assert "s01 is refused" in page
    assert "s01 is refused" in (out / "report.md").read_text()


def test_an_editor_that_fails_all_leaves_a_report_of_that(run, tmp_path):
    given = write_set(tmp_path / "set", 3)
    ended, out = run(given, edit={"with": {"refuse": ["s00", "s01", "s02"]}})
    assert ended.returncode == 1
    assert results(out)["counts"]["failed"] == 3
    assert results(out)["overall"]["score"]["mean"] is None
    assert (out / "report.html").exists()


# --- samples that cannot be used ---


def test_samples_that_cannot_be_used_fail_by_themselves(run, tmp_path):
    bad = {
        "tiny": {"image": "tiny.png"},
        "wide": {"image": "wide.png"},
        "torn": {"image": "torn.png"},
        "text": {"image": "text.png"},
        "gone": {"image": "gone.png"},
        "mute": {"instruction": "  "},
        "less": {"instruction": None},
        "s01": {},
    }
    good = {"group": "physical", "instruction": "Change it", "image": "s00.png"}
    rows = [{"id": name, **good, **change} for name, change in bad.items()]
    lines = [json.dumps({k: v for k, v in row.items() if v is not None}) for row in rows]
    given = write_set(tmp_path / "set", 3, lines=[*lines, '{"id": "cut'])
    (given / "tiny.png").write_bytes(png(1, 1))
    (given / "wide.png").write_bytes(png(20_000, 32))
    (given / "torn.png").write_bytes((given / "s00.png").read_bytes()[:70])
    (given / "text.png").write_text("no picture")
    ended, out = run(given)
    assert ended.returncode == 1, ended.stderr
    counts = results(out)["counts"]
    assert (counts["samples"], counts["scored"], counts["failed"]) == (12, 3, 9), counts
    reasons = {name: reason for name, (_state, reason) in unscored(out).items()}
    for name, why in {
        "tiny": "1x1",
        "wide": "20000x32",
        "torn": "cannot be decoded",
        "text": "none of PNG",
        "gone": "No such file",
        "mute": "instruction is empty",
        "less": "no field `instruction`",
        "s01 again, line 11": "same id",
        "line-0012": "no JSON",
    }.items():
        assert why in reasons.pop(name), name
    assert reasons == {}


def test_json_that_breaks_half_way_is_edited_up_to_there(run, tmp_path):
    whole = json.dumps([record(f"Let it rain {at}", png(value=at)) for at in range(4)])
    given = tmp_path / "set.json"
    given.write_text(whole[: int(len(whole) * 0.8)])
    ended, out = run(given)
    assert ended.returncode == 1
    assert "breaks off after 3 samples" in ended.stderr
    assert results(out)["counts"]["scored"] == 3


@pytest.mark.parametrize(
    ("write", "why"),
    [
        (lambda path: path.write_text("[{"), "is no JSON"),
        (lambda path: path.write_text("[]"), "there is no sample in it"),
        (lambda path: write_json(path, [record(image=b"x")]), "not one sample of it can be used"),
        (lambda path: None, "no such input"),
    ],
    ids=["broken", "empty", "unusable", "missing"],
)
def test_a_set_without_one_usable_sample_is_refused(run, tmp_path, write, why):
    write(tmp_path / "set.json")
    ended, out = run("set.json")
    assert ended.returncode == 2
    assert why in ended.stderr.splitlines()[-1]
    assert not out.exists()
    assert not (tmp_path / "run").exists()


def test_an_unknown_category_is_refused_with_the_nearest(run, tmp_path):
    ended, out = run(write_set(tmp_path / "set", 3), "--categories", "phisical")
    assert ended.returncode == 2
    assert "no category `phisical`; did you mean `physical`?" in ended.stderr.splitlines()[-1]
    assert not out.exists()


def test_a_group_that_the_protocol_does_not_know_is_refused(run, tmp_path):
    line = {"id": "x", "group": "musical", "instruction": "Sing", "image": "s00.png"}
    ended, _out = run(write_set(tmp_path / "set", 3, lines=[json.dumps(line)]))
    assert ended.returncode == 2
    assert "musical" in ended.stderr.splitlines()[-1]


# --- a checkpoint that is none, a judge that is away, a disk that is full ---


def test_a_checkpoint_that_is_no_edit_pipeline_is_refused(runpipe, tmp_path):
    (tmp_path / "weights").mkdir()
    index = {"_class_name": "StableDiffusionPipeline", "_diffusers_version": "0.42.1"}
    (tmp_path / "weights/model_index.json").write_text(json.dumps(index))
    ended = runpipe(
        *("--config", "edit_score_tiny", "--set", "model.weights=weights", "--limit", "2"),
        *("--output", "out", "--run-dir", "run"),
    )
    assert ended.returncode == 2
    assert "StableDiffusionPipeline" in ended.stderr.splitlines()[-1]
    assert "Traceback" not in ended.stderr


class _Nonsense(BaseHTTPRequestHandler):
    said = "I like turtles"

    def do_GET(self):
        self._answer({"object": "list", "data": [{"id": "turtle"}]})

    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        if not self.said:
            self.server.held.wait(30)
            return
        message = {"role": "assistant", "content": self.said}
        self._answer({"choices": [{"index": 0, "message": message, "finish_reason": "stop"}]})

    def _answer(self, value):
        body = json.dumps(value).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_arguments):
        pass


class _Silent(_Nonsense):
    said = ""


class _Seven(_Nonsense):
    said = "Score: 7"


class _Server(socketserver.ThreadingTCPServer):
    allow_reuse_address, daemon_threads, block_on_close = True, True, True


@contextmanager
def serving(handler, port=0):
    """Serve a judge's endpoint; yield its address."""
    with _Server(("127.0.0.1", port), handler) as server:
        server.held = threading.Event()
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}/v1"
        finally:
            server.held.set()
            server.shutdown()
            thread.join()


def by_url(url):
    options = {"url": url, "timeout_s": 0.5, "attempts": 1}
    return {"use": "stages.judging:ScoreByUrl", "with": options}


@pytest.mark.parametrize(
    ("handler", "state", "why", "summary"),
    [
        (_Nonsense, "unparsed", "no score could be read from answer 1, also", "unreadable answers"),
        (_Silent, "unjudged", "(1 attempt of up to 0.5 s)", "unjudged edits"),
    ],
    ids=["nonsense", "silent"],
)
def test_a_judge_of_no_use_costs_the_scores_and_nothing_else(
    run, tmp_path, handler, state, why, summary
):
    given = write_set(tmp_path / "set", 3)
    with serving(handler) as url:
        ended, out = run(given, score=by_url(url))
    assert ended.returncode == 0, ended.stderr
    assert f"; 3 {summary}; " in ended.stdout
    assert {state for state, _why in unscored(out).values()} == {state}
    assert all(why in reason for _state, reason in unscored(out).values()), unscored(out)
    assert results(out)["counts"][state] == 3
    assert results(out)["overall"]["score"]["mean"] is None
    assert len(images(out)) == 3


def test_an_answer_without_a_score_is_null_and_the_others_are_scored(run, tmp_path):
    given = write_set(tmp_path / "set", 5)
    ended, out = run(given, score={"with": {"mute": "Change s01"}})
    assert ended.returncode == 0, ended.stderr
    ((name, (state, reason)),) = unscored(out).items()
    assert (name, state) == ("s01", "unparsed")
    assert reason == "no score could be read from answer 1, also when asked again"
    assert told(out)["s01"]["answers"] == told(out)["s01"]["retries"] == ["I would rather not say"]
    assert results(out)["overall"]["score"]["count"] == 4
    assert "I would rather not say" in (out / "report.html").read_text()


def test_a_judge_that_is_not_there_ends_the_run_which_goes_on_when_it_is(run, runpipe, tmp_path):
    given = write_set(tmp_path / "set", 3)
    with socket.create_server(("127.0.0.1", 0)) as reserved:
        port = reserved.getsockname()[1]
    ended, out = run(given, score=by_url(f"http://127.0.0.1:{port}/v1"))
    assert ended.returncode == 2
    assert f"127.0.0.1:{port}" in ended.stderr.splitlines()[-1]
    assert not (out / "results.json").exists()
    with serving(_Seven, port):
        resumed = runpipe("--resume", "run")
    assert resumed.returncode == 0, resumed.stderr
    assert results(out)["overall"]["score"]["mean"] == 7


def test_no_room_for_edits_ends_the_run_which_goes_on_when_there_is(run, runpipe, tmp_path):
    given = write_set(tmp_path / "set", 6)
    (tmp_path / "full").touch()
    full = {"room": 3, "full": str(tmp_path / "full")}
    ended, out = run(given, save={"use": "tests.edit_fakes:FullAfter", "with": full})
    assert ended.returncode == 1
    assert os.strerror(28) in ended.stderr.splitlines()[-1]
    assert not (out / "results.json").exists()
    assert not (out / "edits.jsonl").exists()
    os.unlink(tmp_path / "full")
    resumed = runpipe("--resume", "run")
    assert resumed.returncode == 0, resumed.stderr
    assert results(out)["counts"]["scored"] == 6
    assert json.loads((tmp_path / "run/report.json").read_text())["resumed"]["items"] >= 3
