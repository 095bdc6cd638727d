"""Records with Base64 images in two languages: a JSON list, or lists by category (RE-Edit)."""

from __future__ import annotations

import base64
import binascii
from collections import Counter
from difflib import get_close_matches

from stages.base import UserError
from stages.benchmark.formats.record import Fields, Reading, Record, Records, same_language
from stages.benchmark.formats.stream import elements

CATEGORIES = ("physical", "environmental", "cultural", "causal", "referential")

# In Chinese, as escapes: physical, environmental, social, causal, referential; and other spellings.
_ALSO = {
    "\u7269\u7406": "physical",
    "\u73af\u5883": "environmental",
    "\u793e\u4f1a": "cultural",
    "\u6587\u5316": "cultural",
    "\u56e0\u679c": "causal",
    "\u6307\u4ee3": "referential",
    "cultural/social": "cultural",
    "cultural_social": "cultural",
    "social": "cultural",
}
_CHINESE_ENDS = ("\u7c7b", "\u6027")  # "of the kind", as in "physical kind"

_INSTRUCTIONS = {"en": "edit_instruction_en", "zh": "edit_instruction"}


def category(name: str) -> str:
    """Return the English name of one of the five categories.

    Raises:
        UserError: it is none of them; says which is nearest.
    """
    plain = name.strip().lower()
    for end in _CHINESE_ENDS:
        plain = plain.removesuffix(end)
    found = _ALSO.get(plain, plain)
    if found in CATEGORIES:
        return found
    nearest = get_close_matches(plain, [*CATEGORIES, *_ALSO], n=1, cutoff=0)
    raise UserError(
        f"unknown category `{name}`; did you mean `{_ALSO.get(nearest[0], nearest[0])}`?"
        f" There are {', '.join(CATEGORIES)}"
    )


def records(reading: Reading) -> Records:
    """Yield the records of a file; each without an `id` is called by its category and place there.

    Raises:
        BrokenInputError: the file breaks off.
        UserError: it cannot be read.
    """
    counts: Counter[str] = Counter()
    for number, (key, value) in enumerate(elements(reading.path)):
        fields = Fields(value)
        group = _group(fields, key)
        own = fields.optional("id")
        named = f"{group}-{counts[group]:04}" if group else f"record-{number:04}"
        counts[group] += 1
        language, instruction = _instruction(fields, reading.languages)
        image = _image(fields)
        yield Record(
            place=f"record {number + 1}",
            id=named if own is None else own,
            group=group,
            language=language,
            instruction=instruction,
            image=image,
            tags=tuple(tag for tag in (fields.optional("difficulty"),) if tag),
            problem=fields.problem,
        )


def _group(fields: Fields, key: str) -> str:
    said = fields.optional("subset", "category") or key
    if not said:
        fields.text("subset")
        return ""
    try:
        return category(said)
    except UserError as error:
        fields.say(str(error))
        return ""


def _instruction(fields: Fields, languages: tuple[str, ...]) -> tuple[str, str]:
    """Return the language that an instruction is taken in, and the instruction."""
    wanted = [same_language(one) for one in languages] or list(_INSTRUCTIONS)
    known = [one for one in wanted if one in _INSTRUCTIONS]
    for language in known:
        text = fields.optional(_INSTRUCTIONS[language])
        if text is not None and text.strip():
            return language, text
    if known:
        return known[0], fields.text(*(_INSTRUCTIONS[language] for language in known))
    fields.say(f"no instruction in {', '.join(languages)}: there are en and zh")
    return "", ""


def _image(fields: Fields) -> bytes:
    text = fields.text("src_img_b64")
    _, _, text = text.rpartition("base64,")  # "data:image/png;base64,..." or plain
    try:
        return base64.b64decode("".join(text.split()), validate=True)
    except (binascii.Error, ValueError):
        fields.say("field `src_img_b64` is no Base64")
        return b""
