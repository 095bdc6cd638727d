"""Pictures on their way into the VAE and out of it: as diffusers has them, to the last bit.

diffusers resizes with Pillow and divides by 255 in numpy, both on the CPU. A picture that lies on
a GPU would have to come back for that, and the GPU to wait; so Pillow's resize is here as two
matrix products, in the order that Pillow takes. They are exact: it multiplies samples of 8 bits by
coefficients rounded to 22, and every sum of those is a whole number that float64 holds.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from stages.editing.sizes import Size

_COEFFICIENT_BITS = 22  # of Pillow, for pictures of 8 bits
_LOBES = 3  # of its Lanczos window


def resized(picture: torch.Tensor, size: Size) -> torch.Tensor:
    """Return `picture` [H, W, 3] uint8 at `size`, on its own device, as Pillow's LANCZOS has it."""
    if picture.device.type != "cpu":
        known = is_across_first(int(picture.shape[0]), int(picture.shape[1]), *size)
        if known is not None:
            return resized_by_products(picture, size, across_first=known)
    height, width = size
    image = as_image(picture).resize((width, height), Image.Resampling.LANCZOS)
    return torch.from_numpy(np.array(image)).to(picture.device)


def resized_by_products(picture: torch.Tensor, size: Size, *, across_first: bool) -> torch.Tensor:
    """Return the same, computed where `picture` lies, by rows or by columns first."""
    for is_across in (across_first, not across_first):
        before, after = picture.shape[int(is_across)], size[int(is_across)]
        if before != after:
            table = _on(picture.device, before, after)
            sums = "ow,hwc->hoc" if is_across else "oh,hwc->owc"
            picture = _rounded(torch.einsum(sums, table, picture.double()))
    return picture


@lru_cache(maxsize=4096)
def is_across_first(height: int, width: int, high: int, wide: int) -> bool | None:
    """Return whether Pillow resizes rows first from [height, width] to [high, wide].

    Until version 12 it always does; 13 begins with either. What lies between is rounded, so the
    order shows: this resizes noise once and looks at a few rows of it. None: it does neither.
    """
    noise = _noise(height, width)
    wanted = Image.fromarray(noise).resize((wide, high), Image.Resampling.LANCZOS)
    rows = slice(high // 2, high // 2 + 4)
    down = coefficients(height, high)[rows] if height != high else np.eye(height)[rows]
    used = np.flatnonzero(down.any(axis=0))
    across = coefficients(width, wide) if width != wide else None
    for is_first in (True, False):
        part = noise[used].astype(np.float64)
        for is_across in (is_first, not is_first):
            if is_across and across is not None:
                part = _rounded_on_cpu(np.einsum("ow,hwc->hoc", across, part, optimize=True))
            elif not is_across and height != high:
                part = _rounded_on_cpu(np.einsum("oh,hwc->owc", down[:, used], part))
        if np.array_equal(part, np.asarray(wanted)[rows]):
            return is_first
    return None


def as_image(picture: torch.Tensor) -> Image.Image:
    """Return `picture` [H, W, 3] uint8 as an image of Pillow's, which never changes it."""
    return Image.fromarray(picture.cpu().numpy())


def levels(device: torch.device) -> torch.Tensor:
    """Return the number between -1 and 1 that each of the 256 values of a sample stands for."""
    # A table, made on the CPU: a GPU divides by multiplying with the reciprocal.
    return (torch.arange(256, dtype=torch.float32) / 255 * 2 - 1).to(device)


def to_vae(picture: torch.Tensor, levels: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Return `picture` [H, W, 3] as [1, 3, 1, H, W] between -1 and 1.

    It lies in memory as before, channels last: a convolution may add up in another order else.
    """
    return levels[picture.long()].permute(2, 0, 1)[None, :, None].to(dtype)


def from_vae(picture: torch.Tensor, out: torch.Tensor) -> None:
    """Write [1, 3, H, W] between -1 and 1 to `out`, [H * W * 3] uint8."""
    scaled = (picture * 0.5 + 0.5).clamp(0, 1).float().permute(0, 2, 3, 1)
    out.copy_((scaled * 255).round().flatten())


def _noise(height: int, width: int) -> NDArray[np.uint8]:
    drawn = np.random.default_rng(0).bytes(height * width * 3)
    return np.frombuffer(drawn, np.uint8).reshape(height, width, 3)


def _rounded_on_cpu(sums: NDArray[np.float64]) -> NDArray[np.float64]:
    return _rounded(torch.from_numpy(sums)).double().numpy()


def _rounded(sums: torch.Tensor) -> torch.Tensor:
    half, one = 2.0 ** (_COEFFICIENT_BITS - 1), 2.0**_COEFFICIENT_BITS
    return ((sums + half) / one).floor_().clamp_(0, 255).to(torch.uint8)


@lru_cache(maxsize=8)  # 10 MB each; samples of one size follow each other in most sets
def _on(device: torch.device, count: int, wanted: int) -> torch.Tensor:
    made = torch.from_numpy(coefficients(count, wanted))
    if device.type != "cuda":
        return made.to(device)
    return made.pin_memory().to(device, non_blocking=True)


def coefficients(count: int, wanted: int) -> NDArray[np.float64]:
    """Return [wanted, count]: what each of `count` samples gives to each wanted one, times 2^22."""
    scale = count / wanted
    shrink = max(scale, 1.0)
    centers = (np.arange(wanted) + 0.5) * scale
    first = np.maximum((centers - _LOBES * shrink + 0.5).astype(np.int64), 0)
    last = np.minimum((centers + _LOBES * shrink + 0.5).astype(np.int64), count)
    places = np.arange(count)[None, :]
    distances = (places - centers[:, None] + 0.5) * (1.0 / shrink)
    weights = np.where(np.abs(distances) <= _LOBES, _lanczos(distances), 0.0)
    weights *= (places >= first[:, None]) & (places < last[:, None])
    weights /= weights.sum(1, keepdims=True)
    rounded: NDArray[np.float64] = np.trunc(
        weights * 2**_COEFFICIENT_BITS + np.copysign(0.5, weights)
    )
    return rounded


def _lanczos(distances: NDArray[np.float64]) -> NDArray[np.float64]:
    window: NDArray[np.float64] = np.sinc(distances) * np.sinc(distances / _LOBES)
    return window
