"""Makes the README's picture of a run over the demo clip: what was read, computed, and is true.

A row per moment: the frame before, the computed one between, the true one, the frame after.

    python tools/make_picture.py demo_interpolated.mp4
"""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import click
import numpy as np
from numpy.typing import NDArray

Picture = NDArray[np.uint8]

PROJECT = Path(__file__).resolve().parent.parent
GAP = 4  # white pixels between panels


def read(path: Path) -> list[Picture]:
    """Return all frames, [height, width, 3]."""
    with av.open(str(path)) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]


def panels(doubled: list[Picture], truth: list[Picture], pair: int) -> Picture:
    """Return frame, computed, true, next frame of one pair, side by side."""
    shown = [doubled[2 * pair], doubled[2 * pair + 1], truth[pair], doubled[2 * pair + 2]]
    white = np.full((shown[0].shape[0], GAP, 3), 255, np.uint8)
    return np.hstack([part for panel in shown for part in (panel, white)][:-1])


def write(path: Path, picture: Picture, width: int) -> None:
    """Write a PNG `width` pixels wide."""
    frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), "rgb24")
    height = round(picture.shape[0] * width / picture.shape[1])
    small = frame.reformat(width, height, "rgb24", interpolation="LANCZOS")
    codec = av.CodecContext.create("png", "w")
    codec.width, codec.height, codec.pix_fmt = width, height, "rgb24"
    codec.time_base = Fraction(1, 1)
    path.write_bytes(b"".join(bytes(packet) for packet in codec.encode(small)))


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("doubled", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option(
    "--truth",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    default=PROJECT / "tests/data/demo/between.mp4",
    help="The true frames between. Default: those of the demo clip.",
)
@click.option("--pair", "pairs", type=int, multiple=True, default=(12, 40), show_default=True)
@click.option("--width", default=1200, show_default=True, help="Of the picture, in pixels.")
@click.option(
    "--output",
    type=click.Path(path_type=Path),
    default=PROJECT / "configs/demo/frames.png",
    help="Default: the README's picture.",
)
def main(doubled: Path, truth: Path, pairs: tuple[int, ...], width: int, output: Path) -> None:
    """Put frames of DOUBLED, the demo clip at twice its rate, beside the truth."""
    computed, true = read(doubled), read(truth)
    rows = [panels(computed, true, pair) for pair in pairs]
    white = np.full((GAP, rows[0].shape[1], 3), 255, np.uint8)
    whole = np.vstack([part for row in rows for part in (row, white)][:-1])
    write(output, whole, width)


if __name__ == "__main__":
    main()
