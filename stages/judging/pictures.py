"""Pictures for judges that do not compute on them by torch."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from stages.judging.judge import Picture


def shown(picture: Picture[NDArray[np.uint8]]) -> Image.Image:
    """Return a picture at the size to show it at, resized as the protocols' authors do."""
    height, width = picture.size
    image = Image.fromarray(picture.pixels)
    if image.size == (width, height):
        return image
    return image.resize((width, height), Image.Resampling.BICUBIC)
