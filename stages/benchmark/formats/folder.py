"""A folder of one's own: images, and samples.jsonl with a line for each sample."""

from __future__ import annotations

import json
import os

from stages.benchmark.formats.record import Fields, Reading, Record, Records, unreadable

LIST_NAME = "samples.jsonl"


def records(reading: Reading) -> Records:
    """Yield a record for each line {id, group, instruction, image}, perhaps {language, tags}.

    A line that is no JSON is a record that cannot be used: those after it are as good as before.

    Raises:
        UserError: the file cannot be read.
    """
    path = reading.path
    if os.path.isdir(path):
        path = os.path.join(path, LIST_NAME)
    root = reading.images or os.path.dirname(path)
    try:
        with open(path, "rb") as file:
            for number, line in enumerate(file, 1):
                if line.strip():
                    record = _record(number, line, root)
                    if reading.wants(record.language):
                        yield record
    except OSError as error:
        raise unreadable(path, error) from error


def _record(number: int, line: bytes, root: str) -> Record:
    try:
        value: object = json.loads(line.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        return Record(
            place=f"line {number}",
            id=f"line-{number:04}",
            group="",
            language="en",
            instruction="",
            image="",
            problem=f"it is no JSON ({error})",
        )
    fields = Fields(value)
    image = fields.text("image")
    return Record(
        place=f"line {number}",
        id=fields.text("id") or f"line-{number:04}",
        group=fields.text("group", "category"),
        language=fields.optional("language") or "en",
        instruction=fields.text("instruction"),
        image=os.path.join(root, image) if image else "",
        tags=fields.texts("tags"),
        problem=fields.problem,
    )
