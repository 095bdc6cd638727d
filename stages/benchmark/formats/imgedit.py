"""ImgEdit's basic set: a JSON object of {key: {id, prompt, edit_type}}, images in a folder."""

from __future__ import annotations

import os

from stages.benchmark.formats.record import Fields, Reading, Record, Records
from stages.benchmark.formats.stream import elements


def records(reading: Reading) -> Records:
    """Yield the records of a file; `id` is an image's path below the folder of images.

    Raises:
        BrokenInputError: the file breaks off.
        UserError: it cannot be read.
    """
    root = reading.images or os.path.dirname(reading.path)
    for number, (key, value) in enumerate(elements(reading.path)):
        fields = Fields(value)
        image = fields.text("id")
        yield Record(
            place=f"record {number + 1}",
            id=key,
            group=fields.text("edit_type"),
            language="en",
            instruction=fields.text("prompt"),
            image=os.path.join(root, image) if image else "",
            problem=fields.problem,
        )
