"""A judge behind a URL, asked through real sockets; servers that misbehave in every way."""

import base64
import io
import logging
import threading

import msgspec
import numpy as np
import pytest
from PIL import Image

from stages.judging.endpoint import MAX_ANSWER_BYTES
from tests.stages.judging.groups import Group, member, pixels_of, send, send_json

TWO = Group([member(0), member(1, instruction="Let it rain.")])


def about(request):
    """Return the text that a request asks."""
    return request["messages"][-1]["content"][-1]["text"]


def by_instruction(first, rest):
    """Behave so for the instruction of the first member, and so for all others."""
    return lambda request, _number: first if "Move the ball 0" in about(request) else rest


def test_each_edited_image_is_asked_about_with_both_pictures(serve, judge_at):
    server = serve(by_instruction("Score: 3", "Score: 8.5"))
    replies = TWO.run(judge_at(server.url)).replies
    assert [one.texts for one in replies] == [("Score: 3",), ("Score: 8.5",)]
    assert all(not one.reason for one in replies)
    request, _, path = server.asked[0]
    assert path == "/v1/chat/completions"
    assert (request["model"], request["temperature"]) == ("judge", 0)
    assert request["max_tokens"] == 256
    assert [message["role"] for message in request["messages"]] == ["system", "user"]
    shown = [_decoded(part) for part in request["messages"][1]["content"][:2]]
    row = 0 if "Move the ball 0" in about(request) else 1
    for image, size, salt in zip(shown, [(96, 64), (64, 96)], [0, 100], strict=True):
        np.testing.assert_array_equal(image, pixels_of(size, row + salt))


def _decoded(part):
    kind, _, packed = part["image_url"]["url"].partition(",")
    assert kind == "data:image/png;base64"
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(packed))))


def test_an_edit_is_sent_at_the_sources_size_by_gedits_rule(serve, judge_at):
    server = serve(lambda *_: '{"score": [8, 6]}')
    group = Group([member(0, group="ps_human")])
    (only,) = group.run(judge_at(server.url, protocol="gedit")).replies
    assert only.texts == ('{"score": [8, 6]}',) * 2
    sizes = {
        _decoded(part).shape
        for request, _, _ in server.asked
        for part in request["messages"][-1]["content"]
        if part["type"] == "image_url"
    }
    assert sizes == {(96, 64, 3)}


def test_failed_and_unasked_members_are_not_asked(serve, judge_at):
    server = serve(lambda *_: "Score: 4")
    members = [
        member(0, state="failed", copy_of=2),
        member(1, state="unasked", copy_of=2),
        member(2),
    ]
    group = Group(members)
    replies = group.run(judge_at(server.url)).replies
    assert len(server.asked) == 1
    assert [bool(one.texts) for one in replies] == [False, False, True]
    assert group.judged == [0, 0, 1]
    nobody = Group([member(0, state="failed", copy_of=-1)]).run(judge_at(server.url)).replies
    assert len(server.asked) == 1
    assert nobody[0].reason == "not asked: the edit failed: out of paint"


def test_what_cannot_be_read_is_asked_again_once_with_the_format(serve, judge_at):
    def behave(request, _number):
        return "Score: 7" if "could not be read" in about(request) else "What a picture!"

    server = serve(behave)
    (only,) = Group([member(0)]).run(judge_at(server.url)).replies
    assert (only.texts, only.retries) == (("What a picture!",), ("Score: 7",))
    stubborn = serve(lambda *_: "What a picture!")
    (only,) = Group([member(0)]).run(judge_at(stubborn.url)).replies
    assert (only.texts, only.retries) == (("What a picture!",), ("What a picture!",))
    assert only.reason == ""
    assert len(stubborn.asked) == 2


def test_a_server_that_is_busy_is_asked_again(serve, judge_at):
    def behave(_request, number):
        if number == 0:
            return lambda handler: send_json(handler, {"error": "busy"}, status=503)
        return "Score: 7"

    server = serve(behave)
    (only,) = Group([member(0)]).run(judge_at(server.url)).replies
    assert only.texts == ("Score: 7",)
    assert not only.reason


def refuse(handler):
    send_json(handler, {"error": {"message": "image too\nlarge"}}, status=400)


def fail(handler):
    send(handler, b"<h1>oops</h1>", status=500)


def nonsense(handler):
    send(handler, b"\xff\x00 not JSON")


def another_form(handler):
    send_json(handler, {"choices": []})


def no_text(handler):
    send_json(handler, {"choices": [{"message": {"content": None}}]})


def deep(handler):
    send(handler, b"[" * 100_000)


def too_large(handler):
    send(handler, b" " * (MAX_ANSWER_BYTES + 1))


def hang_up(handler):
    handler.close_connection = True
    handler.connection.close()


def cut_short(handler):
    handler.send_response(200)
    handler.send_header("Content-Length", "1000")
    handler.end_headers()
    handler.wfile.write(b"{")
    handler.close_connection = True


def never_answer(handler):
    handler.server.stopped.wait()
    handler.close_connection = True


def drip(handler):
    """Send a byte now and then, each well within a timeout, for ever."""
    handler.send_response(200)
    handler.end_headers()
    while not handler.server.stopped.wait(0.05):
        handler.wfile.write(b" ")
        handler.wfile.flush()


@pytest.mark.parametrize(
    ("broken", "reason"),
    [
        (refuse, r'HTTP 400: {"error": {"message": "image too\nlarge"}}'),
        (fail, "HTTP 500: <h1>oops</h1> (2 attempts of up to 60 s)"),
        (nonsense, "answered no JSON: \ufffd not JSON (2 attempts of up to 60 s)"),
        (another_form, "answered without choices[0].message.content"),
        (no_text, "answered without choices[0].message.content"),
        (deep, "answered no JSON"),
        (too_large, f"it sent more than {MAX_ANSWER_BYTES} bytes"),
        (hang_up, "disconnected"),
        (cut_short, "(2 attempts of up to"),
    ],
)
def test_a_broken_answer_leaves_out_its_sample_alone(serve, judge_at, broken, reason):
    server = serve(by_instruction(broken, "Score: 6"))
    bad, good = TWO.run(judge_at(server.url)).replies
    assert reason in bad.reason
    assert bad.texts == ("",)
    assert good.texts == ("Score: 6",)
    assert not good.reason
    assert TWO.judged == [0, 1]


@pytest.mark.parametrize("broken", [never_answer, drip])
def test_an_answer_that_does_not_end_in_time_leaves_out_its_sample_alone(serve, judge_at, broken):
    server = serve(by_instruction(broken, "Score: 6"))
    bad, good = TWO.run(judge_at(server.url, timeout_s=3.0, attempts=1)).replies
    assert bad.reason == "timed out (ReadTimeout) (1 attempt of up to 3 s)"
    assert good.texts == ("Score: 6",)


def test_only_so_many_questions_are_under_way_at_once(serve, judge_at):
    here, most, lock, together = 0, 0, threading.Lock(), threading.Barrier(3)

    def behave(_request, _number):
        nonlocal here, most
        with lock:
            here += 1
            most = max(most, here)
        together.wait(60.0)  # three at a time there must be, or it breaks
        with lock:
            here -= 1
        return "Score: 5"

    server = serve(behave)
    group, said = Group([member(row) for row in range(6)]), []
    group.run(judge_at(server.url, concurrency=3), progress=said.append)
    assert most == 3
    assert said == sorted(said)
    assert len(said) >= 6


def test_the_token_of_a_file_is_sent_and_never_told(serve, judge_at, tmp_path, caplog):
    path = tmp_path / "token"
    path.write_text("s3cret\n")
    server = serve(lambda *_: lambda handler: send_json(handler, {"error": "no"}, status=401))
    with caplog.at_level(logging.DEBUG):
        judge = judge_at(server.url, token_file=str(path))
        (only,) = Group([member(0)]).run(judge).replies
    assert server.asked[0][1]["Authorization"] == "Bearer s3cret"
    assert only.reason.startswith("HTTP 401")
    assert "s3cret" not in caplog.text + only.reason


def test_the_token_may_lie_in_a_named_variable(serve, judge_at, monkeypatch):
    monkeypatch.setenv("JUDGE_TOKEN", "s3cret")
    server = serve(lambda *_: "Score: 5")
    Group([member(0)]).run(judge_at(server.url, token_env="JUDGE_TOKEN"))
    assert server.asked[0][1]["Authorization"] == "Bearer s3cret"
    Group([member(0)]).run(judge_at(server.url))
    assert "Authorization" not in server.asked[1][1]


def test_a_proxy_of_the_environment_is_not_taken(serve, judge_at, monkeypatch):
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    server = serve(lambda *_: "Score: 5")
    (only,) = Group([member(0)]).run(judge_at(server.url)).replies
    assert only.texts == ("Score: 5",)


def test_long_answers_fit_into_what_travels_with_an_item(serve, judge_at):
    thoughts = "\u8bc4" * 30_000
    server = serve(lambda *_: f"{thoughts} \ud800 Score: 7.5")
    members = [member(row, instruction="\u8bc4" * 1300) for row in range(8)]
    meta = Group(members).run(judge_at(server.url))
    assert len(msgspec.msgpack.encode(meta)) <= 64 * 1024
    assert all(one.texts[0].endswith("Score: 7.5") for one in meta.replies)
    assert all(len(one.texts[0]) <= 2000 for one in meta.replies)
