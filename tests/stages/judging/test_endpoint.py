"""What a user may write wrongly about a judge's URL, and what is refused before any sample."""

import pytest

from stages.base import UserError
from stages.judging import ScoreByUrl


def test_a_token_that_is_none_is_a_users_mistake(serve, judge_at, tmp_path):
    url = serve(lambda *_: "").url
    odd = tmp_path / "token"
    odd.write_text("two words\n")
    with pytest.raises(UserError, match="holds no token") as caught:
        judge_at(url, token_file=str(odd))
    assert "two words" not in str(caught.value)
    with pytest.raises(UserError, match="No such file"):
        judge_at(url, token_file=str(tmp_path / "none"))
    with pytest.raises(UserError, match="no such environment variable"):
        judge_at(url, token_env="RUNPIPE_NO_SUCH_TOKEN")
    with pytest.raises(UserError, match="only one of them"):
        judge_at(url, token_env="A", token_file="b")


def test_a_server_that_is_not_there_is_a_users_mistake(serve, judge_at):
    with pytest.raises(UserError, match=r"url http://127\.0\.0\.1:9/v1: cannot be reached"):
        judge_at("http://127.0.0.1:9/v1")


@pytest.mark.parametrize(
    ("model", "served", "wrong"),
    [
        ("", ["a", "b"], "serves a, b; set model"),
        ("judgee", ["judge"], "did you mean judge?"),
        ("zzz", ["judge"], "it serves judge"),
        ("", [], "serves nothing it tells; set model"),
    ],
)
def test_a_model_that_is_not_served_is_a_users_mistake(serve, judge_at, model, served, wrong):
    with pytest.raises(UserError, match=wrong.replace("?", r"\?")):
        judge_at(serve(lambda *_: "", models=served).url, model=model)


@pytest.mark.parametrize(
    ("url", "wrong"),
    [
        ("127.0.0.1:8000", "write it whole"),
        ("ftp://host/v1", "write it whole"),
        ("http://me:pass@host/v1", "has a password in it"),
        ("http://host/v1?key=1", "leave out what follows the path"),
        ("http://ho st:x/v1", "url http"),
    ],
)
def test_a_url_that_is_none_is_a_users_mistake(url, wrong):
    with pytest.raises(UserError, match=wrong) as caught:
        ScoreByUrl(url=url, protocol="origin")
    assert "pass@" not in str(caught.value)


@pytest.mark.parametrize(
    "settings",
    [{"concurrency": 0}, {"attempts": 0}, {"timeout_s": 0.0}, {"resize": "big"}],
)
def test_a_setting_out_of_its_range_is_a_users_mistake(settings):
    with pytest.raises(UserError, match=next(iter(settings))):
        ScoreByUrl(url="http://host/v1", protocol="origin", **settings)
