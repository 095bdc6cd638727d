"""Reading scores out of what a judge wrote. Strict: one clear statement within range, or None.

Everything that states a score is collected: JSON with a key `score`, "Score: 7.5" and its like,
"I would give it 7", "7/10". If two statements differ, or one is out of range, or what follows the
number makes it another thing (a date, a range, a share), the answer is doubtful, and that is None.
Only an answer that says nothing else may be a number alone.

All patterns are bounded, so hostile text costs time in proportion to its length.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

MAX_CHARS = 65_536  # a longer answer is no answer
MAX_OBJECTS = 32  # places where JSON is looked for

_FULL_WIDTH = str.maketrans(
    {0xFF10 + digit: str(digit) for digit in range(10)}
    | {0xFF1A: ":", 0xFF0E: ".", 0xFF0F: "/", 0xFF1D: "=", 0xFF08: "(", 0xFF09: ")", 0xFF0D: "-"}
)
_MARKUP = str.maketrans(dict.fromkeys("*_`#$\\", " "))
_POINTS = "\u5206"  # fen
_CHINESE_LABELS = "|".join(
    [
        "\u8bc4\u5206",  # ping fen
        "\u5f97\u5206",  # de fen
        "\u5206\u6570",  # fen shu
        "\u603b\u5206",  # zong fen
        "\u6253\u5206",  # da fen
        "\u8bc4\u4e3a",  # ping wei
    ]
)
# Between a label and its number: "(0-10)", "is", ":", and quotes.
_LINK = (
    r"(?:[ \t]{0,4}\([^()\n]{0,24}\))?[ \t\"']{0,4}"
    r"(?:is|was|of|would be|\u4e3a|\u662f|\u7ed9)?[ \t\"']{0,4}(?:[:=][ \t\"']{0,4}\n?[ \t]{0,4})?"
)
_LABEL = re.compile(
    rf"(?:\b(?:score|rating|grade)s?\b|{_CHINESE_LABELS}){_LINK}", re.IGNORECASE | re.ASCII
)
_GIVES = re.compile(
    r"\b(?P<verb>give|rate|award|assign|grade|score)[ \t]{1,4}"
    r"(?:it|this|that|the (?:edit(?:ed)?|image|result|picture)(?: image| result)?)"
    r"[ \t]{1,4}(?:(?:a|an|at|with|as|the score|of)[ \t]{1,4}){0,3}(?:score |rating )?(?:of )?",
    re.IGNORECASE | re.ASCII,
)
_NEGATION = re.compile(r"\b(?:not|never|cannot|nobody|no one)\b|n't\b", re.IGNORECASE)
_NEAR = 24  # characters before a verb in which a negation counts
_NO_SCORE = re.compile(r"(?:nan|inf|infinity|null|none|n/a|unknown)\b", re.IGNORECASE | re.ASCII)
_NUMERIC = re.compile(r"[-+.\u2212\u2013~<>]{0,3}[ \t]?\d")  # any digit there is, also odd ones

_ARITHMETIC = r"[-\u2212\u2013\u2014~/+*^x\u00d7<>\u301c\uff5e]"
_END = (
    r"(?![\w%\u00b0])"  # "8th", "80%", another digit
    r"(?![.,:'\u2019][0-9])"  # "8.5.1", "8,5", "8:30"
    r"(?![ \t]{1,4}[0-9])"
    rf"(?![ \t]{{0,4}}(?:{_ARITHMETIC}|[,;\u3001\uff0c]|\.\.+)[ \t]{{0,4}}[-+]?[0-9])"
    r"(?![ \t]{0,4}(?:to|or|and|percent|out of|\u81f3|\u5230|\u6216)\b)"
    r"(?![ \t]{0,4}/)"
)
_PLAIN = r"[0-9]{1,3}(?:\.[0-9]{1,6})?"
_CLEAN = re.compile(
    rf"(?P<value>{_PLAIN})(?:[ \t]{{0,4}}(?:/|out of|of)[ \t]{{0,4}}(?P<top>{_PLAIN}))?"
    rf"(?:[ \t]{{0,4}}(?:{_POINTS}|points?))?{_END}",
    re.IGNORECASE,
)
_FRACTION = re.compile(
    rf"(?<![\w.,:/+\-\u2212])(?P<value>{_PLAIN})[ \t]{{0,4}}(?:/|out of)[ \t]{{0,4}}"
    rf"(?P<top>{_PLAIN})(?:[ \t]{{0,4}}(?:{_POINTS}|points?))?{_END}",
    re.IGNORECASE,
)
_CLOSING = " \t\r\n.!\"'\u3002"
_FENCE = re.compile(r"```[ \t]{0,4}(?:json)?", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Scale:
    """The range within which a score lies, both ends in."""

    low: float
    high: float

    def within(self, value: object) -> float | None:
        """Return a number that is within range, else None; text is read as a number alone."""
        if isinstance(value, str):
            return self._alone(value)
        if isinstance(value, bool) or not isinstance(value, int | float):
            return None
        return float(value) if self.low <= value <= self.high else None  # NaN is in no range

    def _alone(self, text: str) -> float | None:
        """Return the number that is all of `text`: "8", "8/10"; on a scale to 1 "yes" too."""
        bare = text.strip(_CLOSING)
        if (self.low, self.high) == (0, 1) and bare.casefold() in ("yes", "no"):
            return float(bare.casefold() == "yes")
        clean = _CLEAN.fullmatch(bare)
        return None if clean is None else self._value(clean)

    def _value(self, clean: re.Match[str]) -> float | None:
        if clean["top"] is not None and float(clean["top"]) != self.high:
            return None
        return self.within(float(clean["value"]))


class _Doubtful(Exception):
    """What is there may be a score, and may be not."""


def read_score(reply: str, scale: Scale) -> float | None:
    """Return the one score that `reply` states; None if it states none, or not for sure."""
    try:
        text, objects = _taken_apart(reply)
        found = [_one(scale, value) for value in _stated(objects)]
        found += _labelled(text, scale)
    except _Doubtful:
        return None
    if len(set(found)) == 1:
        return found[0]
    return None if found else scale.within(text)


def read_scores(reply: str, count: int, scale: Scale) -> tuple[float, ...] | None:
    """Return the `count` scores that `reply` lists: `{"score": [8, 6]}` or `Score: [8, 6]`."""
    try:
        text, objects = _taken_apart(reply)
        found = {_several(scale, value, count) for value in _stated(objects)}
        found |= {_several(scale, value, count) for value in _lists(text)}
    except _Doubtful:
        return None
    return found.pop() if len(found) == 1 else None


def read_named(reply: str, names: Sequence[str], scale: Scale) -> Mapping[str, float] | None:
    """Return a score for each of `names`: a line "Name: 4" each, JSON with them, or a list.

    Names are found in any case, with spaces for underscores.
    """
    try:
        text, objects = _taken_apart(reply)
        found = [_members(each, names, scale) for each in objects if not each.keys() & {"score"}]
        listed = [_several(scale, value, len(names)) for value in _stated(objects)]
        found += [dict(zip(names, values, strict=True)) for values in listed]
        found += _lines(text, names, scale)
    except _Doubtful:
        return None
    return found[0] if found and all(each == found[0] for each in found) else None


def _taken_apart(reply: str) -> tuple[str, list[dict[str, object]]]:
    """Return an answer's text without its thoughts and its JSON, and the JSON's objects."""
    if len(reply) > MAX_CHARS:
        raise _Doubtful
    _thoughts, _closed, answer = reply.rpartition("</think>")
    if "<think>" in answer:  # cut off before it came to its answer
        raise _Doubtful
    objects, kept, end = list[dict[str, object]](), list[str](), 0
    for start in _braces(answer):
        if start < end:
            continue
        try:
            value, after = _decoder.raw_decode(answer, start)
        except (ValueError, RecursionError):
            continue
        kept.append(answer[end:start])
        objects.append(value)
        end = after
    kept.append(answer[end:])
    text = _FENCE.sub(" ", " ".join(kept)) if objects else "".join(kept)
    return text.translate(_FULL_WIDTH).translate(_MARKUP).strip(), objects


def _braces(text: str) -> Iterator[int]:
    """Yield where an object may begin, in the first places."""
    start = -1
    for _ in range(MAX_OBJECTS):
        start = text.find("{", start + 1)
        if start < 0:
            return
        yield start


def _stated(objects: Sequence[dict[str, object]]) -> list[object]:
    return [each["score"] for each in objects if "score" in each]


def _one(scale: Scale, value: object) -> float:
    """Return a score that JSON states; a list of one is one."""
    score = scale.within(value[0] if isinstance(value, list) and len(value) == 1 else value)
    if score is None:
        raise _Doubtful
    return score


def _several(scale: Scale, value: object, count: int) -> tuple[float, ...]:
    if not isinstance(value, list) or len(value) != count:
        raise _Doubtful
    scores = [scale.within(each) for each in value]
    known = tuple(score for score in scores if score is not None)
    if len(known) < count:
        raise _Doubtful
    return known


def _members(each: Mapping[str, object], names: Sequence[str], scale: Scale) -> dict[str, float]:
    """Return the named scores of one object, which has to have them all."""
    by_name = {_plain(key): value for key, value in each.items()}
    if len(by_name) != len(each):
        raise _Doubtful
    return {name: _one(scale, by_name.get(_plain(name))) for name in names}


def _plain(name: str) -> str:
    return name.replace("_", " ").strip().casefold()


def _labelled(text: str, scale: Scale) -> list[float]:
    """Return all scores that `text` states by a label, a verb, or as a fraction."""
    found = []
    for match in _LABEL.finditer(text):
        if _NO_SCORE.match(text, match.end()):
            raise _Doubtful
        if _NUMERIC.match(text, match.end()):
            found.append(_clean_at(text, match.end(), scale))
    for match in _GIVES.finditer(text):
        if _NUMERIC.match(text, match.end()):
            if _NEGATION.search(text, max(0, match.start() - _NEAR), match.start()):
                raise _Doubtful
            found.append(_clean_at(text, match.end(), scale))
    fractions = [each for each in _FRACTION.finditer(text) if float(each["top"]) == scale.high]
    return found + [_clean_at(text, each.start(), scale) for each in fractions]


def _clean_at(text: str, start: int, scale: Scale) -> float:
    """Return the score at `start`, where a digit or a sign is."""
    clean = _CLEAN.match(text, start)
    score = None if clean is None else scale._value(clean)
    if score is None:
        raise _Doubtful
    return score


_LIST = re.compile(r"\[([-+0-9., \t]{1,64})\]")


def _lists(text: str) -> Iterator[list[object]]:
    """Yield every list of numbers, if one follows a label or is all of the text."""
    ends = [match.end() for match in _LABEL.finditer(text)]
    if any(_NUMERIC.match(text, end) for end in ends):
        raise _Doubtful  # one number where several were asked for
    if _LIST.fullmatch(text.strip(_CLOSING)) or any(_LIST.match(text, end) for end in ends):
        yield from ([*match[1].split(",")] for match in _LIST.finditer(text))


def _lines(text: str, names: Sequence[str], scale: Scale) -> list[dict[str, float]]:
    """Return the scores of lines "Name: 4"; none if no line is of that form."""
    found = dict[str, float]()
    for name in names:
        spaced = r"[ \t]".join(map(re.escape, name.replace("_", " ").split()))
        pattern = rf"(?im)^[ \t\-\d.)]{{0,8}}{spaced}{_LINK}(?=[-+.]?\d)"
        values = {_clean_at(text, match.end(), scale) for match in re.finditer(pattern, text)}
        if len(values) > 1:
            raise _Doubtful
        found |= dict.fromkeys([name] * len(values), *values) if values else {}
    if found and len(found) < len(names):
        raise _Doubtful
    return [found] if found else []


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """Return an object as JSON means it; one that says a thing twice is doubtful."""
    made = dict(pairs)
    if len(made) != len(pairs):
        raise _Doubtful
    return made


def _refuse(constant: str) -> float:
    raise _Doubtful  # NaN, Infinity


def _finite(digits: str) -> float:
    value = float(digits)
    if not math.isfinite(value):
        raise _Doubtful
    return value


_decoder = json.JSONDecoder(
    object_pairs_hook=_unique, parse_constant=_refuse, parse_float=_finite, parse_int=_finite
)
