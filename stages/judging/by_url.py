"""The judge that runs elsewhere: any server that speaks OpenAI's chat format, such as vLLM."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stages.base import UserError
from stages.benchmark.facts import GroupFacts
from stages.judging.endpoint import (
    Endpoint,
    Limits,
    NoAnswerError,
    checked_url,
    choose_model,
    quiet,
    read_token,
)
from stages.judging.judge import Answer, Asked, Judge, Picture, Resize, Said
from stages.judging.pictures import shown

Bytes = NDArray[np.uint8]

_PNG_LEVEL = 1  # level 6 takes five times as long, and nobody keeps these
_MAX_CONCURRENCY = 256


class ScoreByUrl(Judge[Bytes]):
    """Asks a server about every edited image of a group; images travel as PNG in data URIs.

    A question that gets no answer leaves its sample without a score, with the reason; the rest goes
    on. A server's answer may depend on what else it is asked at the time.

    Args:
        url: of the API, such as http://127.0.0.1:8000/v1.
        protocol: by whose rules: origin, gedit or imgedit.
        model: the name under which it is served; "": the only one there is.
        resize: show the edited image at the source's size; see `Judge`.
        token_file: a file that holds the token to send; or
        token_env: the name of an environment variable that does.
        concurrency: how many questions are under way at once.
        timeout_s: of one attempt at a question.
        attempts: at one question, with growing pauses.
        proxy: address of an HTTP proxy; no environment variable sets one.

    Raises:
        UserError: there is no such protocol or `resize`, or a number is out of its range.
    """

    library = "numpy"

    def __init__(
        self,
        *,
        url: str,
        protocol: str,
        model: str = "",
        resize: Resize = "protocol",
        token_file: str = "",
        token_env: str = "",
        concurrency: int = 8,
        timeout_s: float = 120.0,
        attempts: int = 4,
        proxy: str = "",
    ) -> None:
        super().__init__(protocol=protocol, resize=resize)
        if not 1 <= concurrency <= _MAX_CONCURRENCY:
            raise UserError(f"concurrency {concurrency}: write 1 to {_MAX_CONCURRENCY}")
        if attempts < 1 or not timeout_s > 0:
            raise UserError("attempts and timeout_s: write more than 0")
        self._url = checked_url(url)
        self._model = model
        self._token = (token_file, token_env)
        self._limits = Limits(timeout_s=timeout_s, attempts=attempts)
        self._concurrency = concurrency
        self._proxy = proxy
        self._endpoint: Endpoint | None = None
        self._askers: ThreadPoolExecutor | None = None

    @property
    def name(self) -> str:
        """The model as it is served, and where."""
        return f"{self._model} at {self._url}"

    def load(self, device: str) -> None:
        """Reach the server, and find the model there.

        Raises:
            UserError: it cannot be reached, or does not serve that model.
        """
        quiet()
        self._endpoint = Endpoint(
            self._url,
            read_token(*self._token),
            self._limits,
            connections=self._concurrency,
            proxy=self._proxy,
        )
        self._model = choose_model(self._model, self._endpoint.models(), self._url)
        self._askers = ThreadPoolExecutor(self._concurrency, "asker")

    def prepare(self, facts: GroupFacts, size: int) -> int:
        """Return `size`: what fits is the server's business."""
        return size

    def ask(self, asked: Sequence[Asked[Bytes]], said: Said) -> Sequence[Answer]:
        """Ask every question by itself, some at a time."""
        assert self._askers is not None, "`load` comes first"
        pictures = dict.fromkeys(one for each in asked for one in each.pictures)
        unseen = [picture for picture in pictures if picture.made is None]
        for picture, packed in zip(unseen, self._askers.map(_data_uri, unseen), strict=True):
            picture.made = packed
        asking = [self._askers.submit(self._answer, one) for one in asked]
        for number, _ in enumerate(as_completed(asking)):
            said((number + 1) / len(asking))
        return [one.result() for one in asking]

    def close(self) -> None:
        """Give up what is under way, and hang up."""
        if self._endpoint is not None:
            self._endpoint.close()
        if self._askers is not None:
            self._askers.shutdown(cancel_futures=True)
        self._endpoint = self._askers = None

    def _answer(self, asked: Asked[Bytes]) -> Answer:
        assert self._endpoint is not None, "`load` comes first"
        try:
            return Answer(self._endpoint.answer(self._request(asked)))
        except NoAnswerError as error:
            return Answer(reason=str(error))

    def _request(self, asked: Asked[Bytes]) -> dict[str, object]:
        question = asked.question
        content: list[dict[str, Any]] = [
            {"type": "image_url", "image_url": {"url": picture.made}} for picture in asked.pictures
        ]
        content.append({"type": "text", "text": question.text})
        messages: list[dict[str, object]] = [{"role": "user", "content": content}]
        if question.system:
            messages.insert(0, {"role": "system", "content": question.system})
        return {
            "model": self._model,
            "messages": messages,
            "temperature": 0,
            "max_tokens": question.max_tokens,
        }


def _data_uri(picture: Picture[Bytes]) -> str:
    """Return an image as a PNG in a data URI, at the size to show it at."""
    packed = io.BytesIO()
    shown(picture).save(packed, "PNG", compress_level=_PNG_LEVEL)
    return f"data:image/png;base64,{base64.b64encode(packed.getvalue()).decode()}"
