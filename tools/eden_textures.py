"""What the training scenes are painted with: procedural textures, outlines, and photographs.

All is made on the device from a generator. The photographs lie inside installed packages (their
licences are in the model card); nothing is downloaded, and a package that is absent is left out.

Legend: N pictures, T texels of a side. Outlines are signed distances, negative inside, where the
picture reaches from -1 to 1: so an edge is sharp at any scale.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import av
import torch
import torch.nn.functional as F

from stages.base import UserError

TRAINED = {
    "skimage": [
        *("data/astronaut.png", "data/brick.png", "data/camera.png", "data/coins.png"),
        *("data/grass.png", "data/gravel.png", "data/hubble_deep_field.jpg", "data/ihc.png"),
        *("data/moon.png", "data/retina.jpg"),
    ],
    "sklearn": ["datasets/images/china.jpg"],
    "matplotlib": ["mpl-data/sample_data/grace_hopper.jpg"],
}
HELD_OUT = {
    "skimage": ["data/chelsea.png", "data/coffee.png", "data/rocket.jpg"],
    "sklearn": ["datasets/images/flower.jpg"],
}


def photographs(names: dict[str, list[str]]) -> dict[str, torch.Tensor]:
    """Return the photographs that are installed, by file name, [3, height, width] in [0, 1]."""
    found = {}
    for package, files in names.items():
        spec = find_spec(package)
        for place in spec.submodule_search_locations or () if spec else ():
            for path in (Path(place) / name for name in files):
                if path.is_file():
                    found[path.name] = read_picture(path)
    return found


def read_picture(path: Path) -> torch.Tensor:
    """Return a picture of any format that FFmpeg reads, [3, height, width] in [0, 1].

    Raises:
        UserError: it is none, or damaged.
    """
    try:
        with av.open(str(path)) as container:
            frame = next(container.decode(video=0), None) if container.streams.video else None
    except av.FFmpegError as error:
        raise UserError(f"{path}: not a picture, or damaged: {error.strerror}") from error
    if frame is None:
        raise UserError(f"{path}: not a picture, or damaged: there is none in it")
    pixels = frame.to_ndarray(format="rgb24")
    return torch.from_numpy(pixels).permute(2, 0, 1).float() / 255


@dataclass(frozen=True, slots=True)
class Dice:
    """Random numbers on one device from one generator."""

    generator: torch.Generator

    @property
    def device(self) -> torch.device:
        """Return where all is made."""
        return self.generator.device

    def uniform(self, *shape: int, low: float = 0.0, high: float = 1.0) -> torch.Tensor:
        """Return numbers in [low, high)."""
        numbers = torch.rand(shape, generator=self.generator, device=self.device)
        return numbers * (high - low) + low

    def normal(self, *shape: int) -> torch.Tensor:
        """Return standard normal numbers."""
        return torch.randn(shape, generator=self.generator, device=self.device)

    def integers(self, high: int, *shape: int) -> torch.Tensor:
        """Return whole numbers in [0, high)."""
        return torch.randint(high, shape, generator=self.generator, device=self.device)

    def log_uniform(self, *shape: int, low: float, high: float) -> torch.Tensor:
        """Return numbers in [low, high), as likely to be halved as doubled."""
        return torch.exp(self.uniform(*shape, low=math.log(low), high=math.log(high)))

    def chance(self, share: float, *shape: int) -> torch.Tensor:
        """Return 1.0 for this share of the numbers, else 0.0."""
        return (self.uniform(*shape) < share).float()


def square(size: int, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Return x and y of every texel, [T, T] in -1..1."""
    side = (torch.arange(size, device=device) + 0.5) * (2 / size) - 1
    y, x = torch.meshgrid(side, side, indexing="ij")
    return x, y


def fractal(dice: Dice, n: int, size: int, rows: int = 4, columns: int = 4) -> torch.Tensor:
    """Return smooth noise of several sizes [N, 1, T, T], about 0..1."""
    total = torch.zeros(n, 1, size, size, device=dice.device)
    decay = dice.uniform(n, 1, 1, 1, low=0.35, high=0.9)
    share, whole = torch.ones_like(decay), torch.zeros_like(decay)
    while max(rows, columns) <= size // 2:
        cells = dice.uniform(n, 1, rows + 1, columns + 1)
        total += share * F.interpolate(cells, (size, size), mode="bicubic", align_corners=True)
        whole, share = whole + share, share * decay
        rows, columns = 2 * rows, 2 * columns
    return ((total / whole - 0.5) * 1.8 + 0.5).clamp_(0, 1)


def colors(dice: Dice, n: int, count: int) -> torch.Tensor:
    """Return [N, count, 3, 1, 1], from grey to bright."""
    grey = dice.uniform(n, count, 1, 1, 1)
    vivid = dice.uniform(n, count, 3, 1, 1)
    share = dice.uniform(n, count, 1, 1, 1)
    return grey + (vivid - grey) * share


def graded(dice: Dice, n: int, size: int) -> torch.Tensor:
    """Noise through a scale of three colours."""
    level = fractal(dice, n, size) * 2
    low, middle, high = colors(dice, n, 3).unbind(1)
    first, second = level.clamp(0, 1), (level - 1).clamp(0, 1)
    return low + (middle - low) * first + (high - middle) * second


def shaded(dice: Dice, n: int, size: int) -> torch.Tensor:
    """One colour lit by fine, often stretched noise."""
    rows, columns = (2 ** int(power) for power in dice.integers(5, 2) + 2)
    light = dice.uniform(n, 1, 1, 1, low=0.5, high=0.9)
    depth = dice.uniform(n, 1, 1, 1, low=0.0, high=0.9)
    return colors(dice, n, 1)[:, 0] * (light + depth * fractal(dice, n, size, rows, columns))


def power_law(dice: Dice, n: int, size: int) -> torch.Tensor:
    """Noise whose spectrum falls as that of photographs does."""
    rows = torch.fft.fftfreq(size, device=dice.device)[:, None]
    columns = torch.fft.rfftfreq(size, device=dice.device)[None]
    radius = torch.hypot(rows, columns).clamp_min(1 / size)
    slope = dice.uniform(n, 1, 1, 1, low=0.9, high=2.0)
    plain = torch.fft.irfft2(torch.fft.rfft2(dice.normal(n, 3, size, size)) * radius**-slope)
    plain = plain / plain.std((1, 2, 3), keepdim=True)
    mixed = torch.einsum("nij,njyx->niyx", dice.normal(n, 3, 3) * 0.1, plain)
    grey = plain[:, :1] * dice.uniform(n, 1, 1, 1, low=0.08, high=0.25)
    return mixed + grey + dice.uniform(n, 3, 1, 1, low=0.2, high=0.8)


def cells(dice: Dice, n: int, size: int) -> torch.Tensor:
    """Patches of colour around scattered points."""
    count = 48
    x, y = square(size, dice.device)
    points = dice.uniform(n, count, 2, low=-1.1, high=1.1)
    tones = colors(dice, n, count)
    nearest = torch.full((n, 1, size, size), 1e9, device=dice.device)
    shown = torch.zeros(n, 3, size, size, device=dice.device)
    for k in range(count):
        px, py = points[:, k, :, None, None, None].unbind(1)
        away = torch.hypot(x - px, y - py)
        shown = torch.where(away < nearest, tones[:, k], shown)
        nearest = torch.minimum(nearest, away)
    return shown * (0.8 + 0.4 * fractal(dice, n, size, 16, 16))


def stripes(dice: Dice, n: int, size: int) -> torch.Tensor:
    """Stripes or checks of two colours, bent a little."""
    x, y = square(size, dice.device)
    angle = dice.uniform(n, 1, 1, 1, high=2 * math.pi)
    rate = dice.log_uniform(n, 1, 1, 1, low=12, high=120)
    bend = fractal(dice, n, size) * dice.uniform(n, 1, 1, 1, high=0.15)
    along = torch.sin((angle.cos() * x + angle.sin() * y + bend) * rate)
    across = torch.sin((angle.cos() * y - angle.sin() * x + bend) * rate)
    checks = torch.where(dice.chance(0.4, n, 1, 1, 1) > 0, along * across, along)
    edge = dice.log_uniform(n, 1, 1, 1, low=1, high=20)
    level = torch.sigmoid(checks * edge)
    low, high = colors(dice, n, 2).unbind(1)
    return low + (high - low) * level


def collage(dice: Dice, n: int, size: int) -> torch.Tensor:
    """Many small shapes of plain colours over one another, as of letters, leaves, windows."""
    x, y = square(size, dice.device)
    shown = shaded(dice, n, size)
    for _ in range(40):
        px, py = dice.uniform(2, n, 1, 1, 1, low=-1.1, high=1.1)
        angle = dice.uniform(n, 1, 1, 1, high=math.pi)
        u, v = angle.cos() * (x - px) + angle.sin() * (y - py), angle.cos() * (y - py)
        v = v - angle.sin() * (x - px)
        a, b = dice.log_uniform(2, n, 1, 1, 1, low=0.008, high=0.25)
        box = torch.maximum(u.abs() - a, v.abs() - b)
        oval = (torch.hypot(u / a, v / b) - 1) * torch.minimum(a, b)
        outline = torch.where(dice.chance(0.5, n, 1, 1, 1) > 0, box, oval)
        cover = (0.5 - outline * (size / 2)).clamp(0, 1)
        shown = shown + (colors(dice, n, 1)[:, 0] - shown) * cover
    return shown


PROCEDURAL: tuple[Callable[[Dice, int, int], torch.Tensor], ...] = (
    *(graded, shaded, power_law, cells),
    *(stripes, collage, shaded, graded),
)


def cut_out(dice: Dice, pictures: list[torch.Tensor], n: int, size: int) -> torch.Tensor:
    """Return random crops of photographs [N, 3, T, T], turned over, in other light and colours."""
    crops = []
    for which in dice.integers(len(pictures), n).tolist():
        picture = pictures[which]
        limit = min(picture.shape[1:])
        side = min(limit, max(64, int(limit * dice.uniform(1, low=0.5, high=1.2).item())))
        top = int(dice.integers(picture.shape[1] - side + 1, 1))
        left = int(dice.integers(picture.shape[2] - side + 1, 1))
        crop = picture[None, :, top : top + side, left : left + side]
        crop = F.interpolate(crop, (size, size), mode="bicubic", antialias=True)
        crops.append(crop.flip(3) if dice.uniform(1).item() < 0.5 else crop)
    stacked = torch.cat(crops).clamp_(0, 1) ** dice.log_uniform(n, 1, 1, 1, low=0.6, high=1.6)
    return stacked * dice.uniform(n, 3, 1, 1, low=0.75, high=1.1)


def textures(dice: Dice, pictures: list[torch.Tensor], n: int, size: int) -> torch.Tensor:
    """Return [N, 3, T, T] in [0, 1], of every kind in turn, starting anywhere."""
    makers = [*PROCEDURAL, *[_photographic(pictures)] * (3 if pictures else 0)]
    first = int(dice.integers(len(makers), 1))
    kinds = [(first + i) % len(makers) for i in range(n)]
    made = torch.empty(n, 3, size, size, device=dice.device)
    for kind in sorted(set(kinds)):
        places = [i for i, k in enumerate(kinds) if k == kind]
        made[places] = makers[kind](dice, len(places), size)
    return made.clamp_(0, 1)


def _photographic(pictures: list[torch.Tensor]) -> Callable[[Dice, int, int], torch.Tensor]:
    return lambda dice, n, size: cut_out(dice, pictures, n, size)
