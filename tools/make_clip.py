"""Renders the demo clip, and the true pictures between its frames, from nothing but a seed.

Two scenes with a hard cut, drawn at twice the clip's rate: even pictures are the clip, odd ones
the truth. In them: layers at many depths, things passing behind others, thin lines, rotation, zoom.
"""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
import click
import numpy as np
from av.codec.context import Flags
from clip_scenes import HEIGHT, SHARP, WIDTH, harbour, valley
from numpy.typing import NDArray

RATE, NUM_FRAMES, CUT = 8, 60, 66  # frames a second of the clip; CUT: first picture of scene 2
NUM_PICTURES = 2 * NUM_FRAMES - 1
SAMPLE_RATE = 44100


def render() -> Iterator[NDArray[np.uint8]]:
    """Yield all pictures, [HEIGHT, WIDTH, 3] RGB."""
    for number in range(NUM_PICTURES):
        t = number / (2 * RATE)
        canvas = valley(t) if number < CUT else harbour(t - CUT / (2 * RATE))
        small = canvas.reshape(HEIGHT, SHARP, WIDTH, SHARP, 3).mean(axis=(1, 3))
        yield (np.clip(small, 0, 1) * 255 + 0.5).astype(np.uint8)


def chords(seconds: float) -> NDArray[np.int16]:
    """Return a soft sweep of chords, [1, samples]."""
    t = np.arange(int(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    sound = np.zeros_like(t)
    for start, base in ((0.0, 220.0), (2.0, 174.61), (CUT / (2 * RATE), 261.63), (6.0, 196.0)):
        since = t - start
        loudness = np.where(since > 0, np.minimum(since / 0.4, 1) * np.exp(-np.abs(since) / 1.6), 0)
        for interval in (1, 5 / 4, 3 / 2, 2):
            sound += loudness * np.sin(2 * np.pi * base * interval * since) / interval
    fade_out = np.clip((seconds - t) / 0.5, 0, 1)
    return (sound * fade_out * 3500).astype(np.int16)[None]


def write(path: Path, pictures: list[NDArray[np.uint8]], crf: int, sound: bool) -> None:
    """Encode `pictures` as H.264; the same bytes on any machine of one FFmpeg version."""
    with av.open(str(path), "w", container_options={"fflags": "+bitexact"}) as container:
        options = {"crf": str(crf), "preset": "slower"}
        video = container.add_stream("libx264", rate=RATE, options=options)
        video.width, video.height, video.pix_fmt, video.thread_count = WIDTH, HEIGHT, "yuv420p", 1
        video.color_range, video.colorspace, video.color_primaries, video.color_trc = 1, 1, 1, 1
        audio = container.add_stream("aac", rate=SAMPLE_RATE) if sound else None
        if audio is not None:
            audio.layout, audio.bit_rate = "mono", 64000
            audio.codec_context.flags |= Flags.bitexact
            samples = av.AudioFrame.from_ndarray(chords(len(pictures) / RATE), "s16", "mono")
            samples.sample_rate, samples.pts = SAMPLE_RATE, 0
            container.mux([*audio.encode(samples), *audio.encode()])
        for number, picture in enumerate(pictures):
            rgb = av.VideoFrame.from_ndarray(picture, "rgb24")
            frame = rgb.reformat(
                format="yuv420p",
                src_color_range="JPEG",
                dst_color_range="MPEG",
                src_colorspace="ITU709",
                dst_colorspace="ITU709",
            )
            frame.pts, frame.time_base = number, Fraction(1, RATE)
            container.mux(video.encode(frame))
        container.mux(video.encode())


@click.command()
@click.option("--clip", default="configs/demo/clip.mp4", show_default=True, help="The clip.")
@click.option(
    "--between",
    default="tests/data/demo/between.mp4",
    show_default=True,
    help="The true pictures between its frames.",
)
def main(clip: str, between: str) -> None:
    """Render the demo clip and the truth between its frames; takes some minutes."""
    with click.progressbar(render(), length=NUM_PICTURES, label="rendering") as bar:
        pictures = list(bar)
    write(Path(clip), pictures[::2], crf=17, sound=True)
    write(Path(between), pictures[1::2], crf=12, sound=False)


if __name__ == "__main__":
    main()
