"""Image files: their size without their pixels, their pixels, and writing them.

Only formats that Pillow decodes by itself, without outside programs. A picture stands as it is to
be shown (EXIF orientation), without alpha, as the models' own loaders do it.
"""

from __future__ import annotations

import os
import struct
import zlib
from io import BytesIO
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import ExifTags, Image, ImageOps

from stages.base import UserError

MIN_SIDE, MAX_SIDE = 32, 8192
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF")
PNG_LEVEL = 1  # 6 takes five times as long for a tenth fewer bytes

_TURNED = (5, 6, 7, 8)  # EXIF orientations that swap the sides
_DEEP = ("I", "I;16", "I;16B", "I;16L", "I;16N", "F")  # Pillow clips these to white
_DAMAGE = (  # what Pillow is seen to raise of bad files
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    IndexError,
    KeyError,
    TypeError,
    OverflowError,
    struct.error,
    zlib.error,
)

Pixels = npt.NDArray[np.uint8]  # [height, width, 3]
Flat = npt.NDArray[np.uint8]  # [bytes]: pixels of one picture, then zeros


def size_of(image: str | bytes) -> tuple[int, int]:
    """Return (height, width) of an image file, given by path or content, by its header alone.

    Raises:
        UserError: it is no image, or of no size to work on.
    """
    with _opened(image) as picture:
        return _size(picture)


def kind_of(content: bytes) -> str:
    """Return the ending of an image's name, "png". It has a size that `size_of` has accepted."""
    with _opened(content) as picture:
        return (picture.format or "png").lower()


def read_pixels(path: str | os.PathLike[str]) -> Pixels:
    """Return an image's pixels, RGB, uint8 [height, width, 3].

    Raises:
        UserError: it cannot be decoded.
    """
    with _opened(os.fspath(path)) as picture:
        _size(picture)
        try:
            upright = ImageOps.exif_transpose(picture)
            return np.asarray(upright.convert("RGB"))
        except (*_DAMAGE, Image.DecompressionBombError) as error:
            raise UserError(f"its image cannot be decoded ({_first_line(error)})") from error


def put_pixels(pixels: Pixels, row: Flat) -> None:
    """Write pixels into a row that is as long or longer, and zeros behind them."""
    row[: pixels.size] = pixels.reshape(-1)
    row[pixels.size :] = 0


def write_png(path: Path, pixels: Pixels) -> None:
    """Write pixels as PNG, whole and synced, under a name that is there only when that is done.

    Raises:
        OSError: the disk is full or broken.
    """
    held = BytesIO()
    Image.fromarray(pixels).save(held, "png", compress_level=PNG_LEVEL)
    write_file(path, held.getvalue())


def write_file(path: Path, content: bytes) -> None:
    """Write a file, whole and synced, under a name that is there only when that is done.

    Raises:
        OSError: the disk is full or broken; it names the file.
    """
    partial = path.with_name(f".{path.name[:200]}.{os.getpid()}.partial")
    try:
        with open(partial, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        partial.rename(path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise OSError(error.errno, error.strerror, str(path)) from error


def sync_folder(path: Path) -> None:
    """Make the names in a folder survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _opened(image: str | bytes) -> Image.Image:
    try:
        return Image.open(BytesIO(image) if isinstance(image, bytes) else image, "r", FORMATS)
    except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        # far above MAX_SIDE; the first is raised where warnings are errors, else `_size` refuses it
        raise UserError(f"its image has more than {MAX_SIDE} pixels a side") from error
    except _DAMAGE as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise UserError(f"its image {image!s} cannot be read ({error.strerror})") from error
        raise UserError(f"its image is none of {', '.join(FORMATS)}") from error


def _size(picture: Image.Image) -> tuple[int, int]:
    if picture.mode in _DEEP:
        raise UserError(f"its image has deep grey ({picture.mode}); convert it to 8 bits")
    width, height = picture.size
    if min(width, height) < MIN_SIDE:
        raise UserError(f"its image is {width}x{height}, under {MIN_SIDE} pixels a side")
    if max(width, height) > MAX_SIDE:
        raise UserError(f"its image is {width}x{height}, over {MAX_SIDE} pixels a side")
    return (width, height) if _is_turned(picture) else (height, width)


def _is_turned(picture: Image.Image) -> bool:
    if picture.format == "PNG" and "exif" not in picture.info:
        return False  # asked, Pillow would decode it all, to look behind the pixels too
    try:
        return picture.getexif().get(ExifTags.Base.Orientation) in _TURNED
    except _DAMAGE as error:
        raise UserError(f"its image's EXIF data is damaged ({_first_line(error)})") from error


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
