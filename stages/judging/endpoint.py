"""A client of a server that speaks OpenAI's chat format: one question, one answer, or why not.

It bounds what a server may do to us: how long it takes, how much it sends, how often we ask.

Source: OpenAI API reference, "Create chat completion"; vLLM's OpenAI-compatible server.
"""

from __future__ import annotations

import json
import logging
import os
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import httpx2

from stages.base import UserError

MAX_ANSWER_BYTES = 2**20
_MAX_TOKEN_BYTES = 16384
_MAX_WAIT_S = 30.0
_FIRST_WAIT_S = 0.5
_QUOTED_CHARS = 120  # of what a server said, in a reason
_TRY_AGAIN = (408, 409, 425, 429)  # and all of 5xx


class NoAnswerError(Exception):
    """Why a question got no answer; asked again before, where that can help."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How patient to be with one question."""

    timeout_s: float  # of one attempt, from connecting to the last byte
    attempts: int


class Endpoint:
    """One server, asked from several threads."""

    def __init__(
        self, url: str, token: str, limits: Limits, *, connections: int, proxy: str = ""
    ) -> None:
        self._url = url
        self._limits = limits
        self._stopped = threading.Event()
        self._client = httpx2.Client(
            headers={"Authorization": f"Bearer {token}"} if token else {},
            timeout=httpx2.Timeout(limits.timeout_s),
            limits=httpx2.Limits(max_connections=connections),
            proxy=proxy or None,
            trust_env=False,  # a proxy is configured here, or there is none
        )

    def close(self) -> None:
        """Close all connections; whoever waits to ask again gives up."""
        self._stopped.set()
        self._client.close()

    def models(self) -> list[str]:
        """Return the names of the models that it serves; none if it does not say.

        Raises:
            UserError: it cannot be reached, or does not accept the token.
        """
        try:
            status, body = self._exchange("GET", "models", None)
        except httpx2.HTTPError as error:
            raise UserError(
                f"url {self._url}: cannot be reached: {_named(error)}; start the server first,"
                " such as: vllm serve Qwen/Qwen3-VL-8B-Instruct"
            ) from error
        except NoAnswerError:
            return []
        if status in (401, 403):
            raise UserError(f"url {self._url}: HTTP {status}; set token_file or token_env")
        try:
            return [str(one["id"]) for one in json.loads(body)["data"]]
        except (ValueError, RecursionError, TypeError, LookupError):
            return []

    def answer(self, request: Mapping[str, object]) -> str:
        """Return the text of an answer, asked again with growing pauses where that may help.

        Raises:
            NoAnswerError: there was none.
        """
        pause_s = _FIRST_WAIT_S
        for attempt in range(1, self._limits.attempts + 1):
            try:
                status, body = self._exchange("POST", "chat/completions", request)
                if status == 200:
                    return _text_of(body)
                reason = f"HTTP {status}: {_quoted(body)}"
                if status < 500 and status not in _TRY_AGAIN:
                    raise NoAnswerError(reason)
            except (httpx2.HTTPError, _OddAnswerError) as error:
                reason = _named(error)
            if attempt == self._limits.attempts or self._stopped.wait(pause_s):
                break
            pause_s = min(2 * pause_s, _MAX_WAIT_S)
        tried = f"{attempt} attempt{'s' if attempt > 1 else ''}"
        raise NoAnswerError(f"{reason} ({tried} of up to {self._limits.timeout_s:g} s)")

    def _exchange(
        self, method: str, path: str, request: Mapping[str, object] | None
    ) -> tuple[int, bytes]:
        """Return status and body.

        Raises:
            httpx2.HTTPError: it could not be reached, or did not finish in time.
            NoAnswerError: it sent more than any answer has.
        """
        deadline = time.monotonic() + self._limits.timeout_s
        body = bytearray()
        with self._client.stream(method, f"{self._url}/{path}", json=request) as response:
            for part in response.iter_bytes():
                body += part
                if len(body) > MAX_ANSWER_BYTES:
                    raise NoAnswerError(f"it sent more than {MAX_ANSWER_BYTES} bytes")
                if time.monotonic() > deadline:
                    raise httpx2.ReadTimeout("not finished in time", request=response.request)
            return response.status_code, bytes(body)


class _OddAnswerError(Exception):
    """What came is no answer in OpenAI's format."""


def read_token(token_file: str, token_env: str) -> str:
    """Return the token that lies in a file or in an environment variable; "" if neither is named.

    Raises:
        UserError: both are named, or there is no token; it is never part of the message.
    """
    if token_file and token_env:
        raise UserError("token_file and token_env: set only one of them")
    if token_env:
        if token_env not in os.environ:
            raise UserError(f"token_env {token_env}: no such environment variable")
        return _checked_token(os.environ[token_env], f"token_env {token_env}")
    if not token_file:
        return ""
    try:
        with Path(token_file).open("rb") as file:
            data = file.read(_MAX_TOKEN_BYTES)
    except OSError as error:
        raise UserError(f"token_file {token_file}: {error.strerror}") from error
    return _checked_token(data.decode("ascii", "replace"), f"token_file {token_file}")


def _checked_token(text: str, where: str) -> str:
    token = text.strip()
    if not token or not (token.isascii() and token.isprintable()) or " " in token:
        raise UserError(f"{where}: holds no token, which is one word of plain letters and signs")
    return token


def choose_model(model: str, served: list[str], url: str) -> str:
    """Return the model to ask for: the one named, or the only one there is.

    Raises:
        UserError: it is not served there, or none is named and there is not just one.
    """
    if model and (model in served or not served):
        return model
    if not model and len(served) == 1:
        return served[0]
    shown = ", ".join(served[:5]) or "nothing it tells"
    if not model:
        raise UserError(f"url {url}: serves {shown}; set model to one of them")
    close = get_close_matches(model, served, 1, cutoff=0.5)
    hint = f"did you mean {close[0]}?" if close else f"it serves {shown}"
    raise UserError(f"url {url}: serves no model {model}; {hint}")


def checked_url(url: str) -> str:
    """Return an endpoint's address without a slash at its end.

    Raises:
        UserError: it is no address of one, or has a password in it.
    """
    try:
        parsed = httpx2.URL(url)
    except httpx2.InvalidURL as error:
        raise UserError(f"url {url}: {error}") from error
    if parsed.userinfo:
        raise UserError("url: has a password in it, which logs would show; set token_file instead")
    if parsed.scheme not in ("http", "https") or not parsed.host:
        raise UserError(f"url {url}: write it whole, such as http://127.0.0.1:8000/v1")
    if parsed.query or parsed.fragment:
        raise UserError(f"url {url}: leave out what follows the path")
    return url.rstrip("/").removesuffix("/chat/completions")


def _text_of(body: bytes) -> str:
    """Return the text of the first choice.

    Raises:
        _OddAnswerError: it is not in OpenAI's format.
    """
    try:
        value: Any = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise _OddAnswerError(f"answered no JSON: {_quoted(body)}") from error
    try:
        text = value["choices"][0]["message"]["content"]
    except (TypeError, LookupError):
        text = None
    if not isinstance(text, str):
        raise _OddAnswerError(f"answered without choices[0].message.content: {_quoted(body)}")
    return text


def _named(error: Exception) -> str:
    if isinstance(error, httpx2.TimeoutException):
        return f"timed out ({type(error).__name__})"
    return str(error) or type(error).__name__


def _quoted(body: bytes) -> str:
    text = body[: 4 * _QUOTED_CHARS].decode("utf-8", "replace")
    shown = "".join(sign if sign.isprintable() else " " for sign in text)
    return " ".join(shown.split())[:_QUOTED_CHARS] or "an empty body"


def quiet() -> None:
    """Have httpx2 log no line for each request."""
    logging.getLogger("httpx2").setLevel(logging.WARNING)
