"""A record of a sample set as its format gives it, before anything of it is believed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from stages.base import UserError

_SAME_LANGUAGE = {"zh": "zh", "cn": "zh", "en": "en"}  # GEdit says cn, all others zh


class BrokenInputError(Exception):
    """The file breaks off here; the records before are good."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """One record: texts as they stand in the file, "" where there is none."""

    place: str  # "record 3", "line 7": where a person finds it
    id: str
    group: str
    language: str
    instruction: str
    image: bytes | str  # the image file itself, or its path
    tags: tuple[str, ...] = ()
    problem: str = ""  # why it cannot be used, as far as its format sees


class Fields:
    """The fields of one record; notes those that are missing or no text."""

    def __init__(self, value: object) -> None:
        self._is_object = isinstance(value, Mapping)
        self._fields: Mapping[object, object] = value if isinstance(value, Mapping) else {}
        self._problems = [] if self._is_object else ["it is no object with fields"]

    @property
    def problem(self) -> str:
        """What was found missing so far, "" if nothing."""
        return "; ".join(self._problems)

    def say(self, problem: str) -> None:
        """Note another problem."""
        if problem not in self._problems:
            self._problems.append(problem)

    def text(self, *names: str) -> str:
        """Return the first of these fields that is there, as text; a number counts as one."""
        value = self.optional(*names)
        if value is not None:
            return value
        if self._is_object:
            self.say(f"no field `{'` or `'.join(names)}`")
        return ""

    def optional(self, *names: str) -> str | None:
        """Return the first of these fields that is there, None if none is."""
        for name in names:
            value = self._fields.get(name)
            if isinstance(value, str):
                return value
            if isinstance(value, int) and not isinstance(value, bool):
                return str(value)
            if value is not None:
                self.say(f"field `{name}` is no text")
                return ""
        return None

    def texts(self, name: str) -> tuple[str, ...]:
        """Return the texts of a list that may be missing, of which others are left out."""
        value = self._fields.get(name)
        if not isinstance(value, Sequence) or isinstance(value, str | bytes):
            return ()
        return tuple(one for one in value if isinstance(one, str))


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """What a format is asked to read."""

    path: str  # a file or a folder, absolute
    languages: tuple[str, ...] = ()  # wanted, best first; () = all, English where there is a choice
    images: str = ""  # folder of images that are named, not held; "" = where the file lies

    def wants(self, language: str) -> bool:
        """Whether records of a language are to be read."""
        return not self.languages or same_language(language) in map(same_language, self.languages)


Records = Iterator[Record]


def same_language(language: str) -> str:
    """Return one name for a language that sets call by several."""
    lowered = language.strip().lower()
    return _SAME_LANGUAGE.get(lowered, lowered)


def unreadable(path: str, error: OSError) -> UserError:
    """Return what to tell of a file that cannot be read at all."""
    return UserError(f"{path}: cannot be read ({error.strerror or error}); check path and disk")
