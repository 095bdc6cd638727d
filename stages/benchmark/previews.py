"""Small pictures of sources and edits, as text that a page can hold."""

from __future__ import annotations

from base64 import b64encode
from io import BytesIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image

SIDE = 320  # pixels, of the longer side
_QUALITY = 72

Bytes = NDArray[np.uint8]


def preview_of_row(row: Bytes, size: tuple[int, int]) -> str:
    """Return a `data:` URI of the picture in a row.

    Args:
        row: uint8 [bytes]; RGB of [height, width, 3] row-major first.
        size: height and width; "" is returned where one is 0.
    """
    height, width = size
    if not (height and width):
        return ""
    pixels = row[: height * width * 3].reshape(height, width, 3)
    return preview_of(Image.fromarray(pixels))


def preview_of(picture: Image.Image) -> str:
    """Return a `data:` URI of a picture, made small and without what else its file says."""
    small = picture.convert("RGB")
    small.thumbnail((SIDE, SIDE), Image.Resampling.BOX, reducing_gap=2.0)
    file = BytesIO()
    small.save(file, "WEBP", quality=_QUALITY, method=2)
    return f"data:image/webp;base64,{b64encode(file.getvalue()).decode()}"
