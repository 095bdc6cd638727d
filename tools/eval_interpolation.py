"""How good the frames between are: PSNR and SSIM beside the average of the two frames.

    python tools/eval_interpolation.py triplets FOLDER      folders of frame_0, frame_1, frame_2
    python tools/eval_interpolation.py video FILE           every second frame, from the others
    python tools/eval_interpolation.py rendered             scenes of the training, never seen
    python tools/eval_interpolation.py photographs          held out, panned, zoomed and rotated

The references are the average of the two frames and the nearest frame, that is the earlier one.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # `python tools/eval_...`

import av
import click
import torch
import torch.nn.functional as F

from stages.base import UserError
from stages.eden.model import Eden, load_eden
from stages.eden.noise import window_noise
from tools.eden_command import Device, say_photographs, start
from tools.eden_data import DISTANCES, Motion, Paint, Place, Renderer
from tools.eden_metrics import Guess, average, nearest, score, table
from tools.eden_textures import HELD_OUT, Dice, photographs, read_picture

Triplet = tuple[torch.Tensor, torch.Tensor, torch.Tensor]

PROJECT = Path(__file__).resolve().parent.parent
WEIGHTS = PROJECT / "stages/eden/weights/eden_small.safetensors"
SMALLEST = 32  # pixels of a side
UNSEEN_SEED = 900_000_001  # far from those of the training
SPIN, GROWTH = 0.06, 0.06  # of photographs, in half the time: radians, log of the size


def read_triplets(folder: Path) -> Iterator[Triplet]:
    """Yield the triplets in `folder` and the folders in it, by name."""
    for first in sorted(folder.rglob("frame_0.*")):
        files = [first.with_stem(f"frame_{i}") for i in range(3)]
        yield _three(str(first), [_read(path) for path in files])


def read_video(path: Path, truth: Path | None) -> Iterator[Triplet]:
    """Yield every second frame with those around it, or what `truth` has between all frames.

    Raises:
        UserError: one of them is no video, or `truth` does not fit.
    """
    frames = _decode(path)
    before = next(frames, None)
    if truth is None:
        between = frames
    else:
        between = _decode(truth)
        _check_count(path, truth)
    if before is None:
        return
    name = str(path) if truth is None else f"{path} and {truth}"
    for middle, after in zip(between, frames, strict=False):
        yield _three(name, [frame.float() / 255 for frame in (before, middle, after)])
        before = after


def _check_count(path: Path, truth: Path) -> None:
    count, true_count = (_count(some) for some in (path, truth))
    if true_count != count - 1:
        raise UserError(
            f"{truth} has {true_count} frames, {path} has {count}: the truth is one frame between"
            f" every two, {max(count - 1, 0)}"
        )


def render_triplets(count: int, height: int, width: int, device: str) -> Iterator[Triplet]:
    """Yield scenes like those of the training, with other textures and photographs."""
    dice = Dice(torch.Generator(device).manual_seed(UNSEEN_SEED))
    found = photographs(HELD_OUT)
    say_photographs(found, HELD_OUT)
    pictures = [picture.to(device) for picture in found.values()]
    paint = Paint(dice, pictures, min(96, 8 * count))
    renderer = Renderer(paint, dice, height, width)
    moving = [distance for distance, _ in DISTANCES if distance]
    for number in range(count):
        if number % 8 == 7:
            paint.refresh(16)
        yield _three(
            "scene", [picture[0] for picture in renderer.render(1, moving[number % len(moving)])]
        )


def move_photographs(count: int, height: int, width: int, device: str) -> Iterator[Triplet]:
    """Yield held-out photographs, each panned, zoomed and rotated as one plane.

    Raises:
        UserError: the packages that they lie in are not installed.
    """
    pictures = list(photographs(HELD_OUT).values())
    if not pictures:
        raise UserError("no photographs: install scikit-image and scikit-learn, which hold them")
    dice = Dice(torch.Generator(device).manual_seed(UNSEEN_SEED))
    for number in range(count):
        picture = pictures[number % len(pictures)].to(device)
        reach = dice.uniform(1, 1, high=30.0 * width / 448)
        angle = dice.uniform(1, 1, high=2 * math.pi)
        growth = dice.uniform(1, 1, low=-GROWTH, high=GROWTH)
        spin = dice.uniform(1, 1, low=-SPIN, high=SPIN)
        motion = Motion(torch.polar(reach, angle), torch.complex(growth, spin))
        yield _three("photograph", list(_photograph(picture, motion, height, width)))


def _photograph(picture: torch.Tensor, motion: Motion, height: int, width: int) -> torch.Tensor:
    """Return [3, 3, height, width]: the picture fills the frame with some room around it."""
    rows, columns = picture.shape[1:]
    zoom = 0.8 * min(rows / height, columns / width)  # of its pixels for one of the frame
    one = torch.ones(1, 1, dtype=torch.complex64, device=picture.device)
    place = motion.undo(Place(one * zoom, 0 * one))
    y = torch.arange(height, device=picture.device)[:, None] + 0.5 - height / 2
    x = torch.arange(width, device=picture.device)[None] + 0.5 - width / 2
    seen = place.factor.view(3, 1, 1) * torch.complex(x.expand(height, -1), y.expand(-1, width))
    seen = seen + place.shift.view(3, 1, 1) * zoom
    grid = torch.stack([seen.real / (columns / 2), seen.imag / (rows / 2)], -1)
    source = picture[None].expand(3, -1, -1, -1)
    found = F.grid_sample(source, grid, "bicubic", "reflection", align_corners=False)
    return found.clamp(0, 1)


def _three(name: str, pictures: list[torch.Tensor]) -> Triplet:
    sizes = [f"{picture.shape[2]}x{picture.shape[1]}" for picture in pictures]
    if len(set(sizes)) > 1:
        raise UserError(f"{name}: pictures of different sizes, {', '.join(sizes)}")
    if min(pictures[0].shape[1:]) < SMALLEST:
        raise UserError(f"{name}: {sizes[0]} is too small, the least is {SMALLEST}x{SMALLEST}")
    before, middle, after = ((p[None] * 255).round() / 255 for p in pictures)
    return before, middle, after


def _read(path: Path) -> torch.Tensor:
    if not path.is_file():
        raise UserError(f"{path}: no such file; a triplet is frame_0, frame_1 and frame_2")
    return read_picture(path)


def _frames(path: Path) -> Iterator[av.VideoFrame]:
    try:
        with av.open(str(path)) as container:
            if not container.streams.video:
                raise UserError(f"{path}: there is no video in it")
            yield from container.decode(video=0)
    except av.FFmpegError as error:
        raise UserError(f"{path}: not a video, or damaged: {error.strerror}") from error


def _count(path: Path) -> int:
    return sum(1 for _ in _frames(path))


def _decode(path: Path) -> Iterator[torch.Tensor]:
    """Yield frames one by one, [3, height, width] uint8."""
    for frame in _frames(path):
        yield torch.from_numpy(frame.to_ndarray(format="rgb24")).permute(2, 0, 1)


def model_guess(eden: Eden, seed: int) -> Guess:
    """Return what the model shows, from the noise that a video's pair of this number gets."""

    def guess(before: torch.Tensor, after: torch.Tensor, number: int) -> torch.Tensor:
        frames = torch.cat([before, after]).to(eden.device)
        latents = eden.grid(*frames.shape[-2:]).geometry.num_latents
        noise = window_noise(seed, number, (1, latents, eden.architecture.latent))
        return eden.interpolate(frames, noise.to(eden.device)).to(before.device)

    return guess


def evaluate(title: str, triplets: Iterator[Triplet], weights: str, device: str, seed: int) -> None:
    """Print the table of one set of triplets."""
    if weights == str(WEIGHTS) and not WEIGHTS.is_file():
        raise UserError(f"{WEIGHTS}, which is part of the project, is missing; give --weights")
    eden = load_eden(weights, device=device)
    guesses: dict[str, Guess] = {
        "model": model_guess(eden, seed),
        "average": average,
        "nearest": nearest,
    }
    count, scores = score(triplets, guesses)
    if not count:
        raise UserError(f"{title}: no triplets there")
    click.echo(table(title, count, scores))


Options = Callable[[Callable[..., None]], Callable[..., None]]


def _options(sized: bool) -> Options:
    shipped = "those that ship"
    size = click.IntRange(min=SMALLEST)
    options = [
        click.option(
            "--weights", default=str(WEIGHTS), show_default=shipped, help="A path, or random:0."
        ),
        click.option("--device", type=Device(), default="cpu", show_default=True),
        click.option("--seed", default=0, show_default=True, help="Of the noise."),
    ]
    if sized:
        options += [
            click.option("--count", type=click.IntRange(min=1), default=200, show_default=True),
            click.option("--height", type=size, default=256, show_default=True),
            click.option("--width", type=size, default=448, show_default=True),
        ]

    def add(command: Callable[..., None]) -> Callable[..., None]:
        for option in reversed(options):
            command = option(command)
        return command

    return add


@click.group(no_args_is_help=False)
def main() -> None:
    """PSNR and SSIM of frames between, beside those of the average and the nearest frame."""


@main.command()
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
@_options(sized=False)
def triplets(folder: Path, weights: str, device: str, seed: int) -> None:
    """Folders of frame_0, frame_1 and frame_2, of any picture format."""
    evaluate(str(folder), read_triplets(folder), weights, device, seed)


@main.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option(
    "--truth",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="What lies between.",
)
@_options(sized=False)
def video(file: Path, truth: Path | None, weights: str, device: str, seed: int) -> None:
    """A video, whose every second frame is dropped and guessed; or whose TRUTH is known."""
    evaluate(str(file), read_video(file, truth), weights, device, seed)


def _made(title: str, make: Callable[..., Iterator[Triplet]]) -> Callable[..., None]:
    def command(weights: str, device: str, seed: int, count: int, height: int, width: int) -> None:
        with torch.device("cpu"):
            evaluate(title, make(count, height, width, device), weights, device, seed)

    return command


rendered = main.command("rendered", help="Scenes like those of the training, never seen.")(
    _options(sized=True)(_made("rendered scenes", render_triplets))
)
moved = main.command("photographs", help="Held-out photographs, panned, zoomed, rotated.")(
    _options(sized=True)(_made("photographs", move_photographs))
)


if __name__ == "__main__":
    start(main)
