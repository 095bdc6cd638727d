"""What the published loop of EDEN does: the honest reference beside figures of anything faster.

One pair at a time, in this process, plain torch, fp32: both frames of each pair are encoded for
each pair, and their keys and values are projected at each of the two steps. Frames come from memory
and go there, once each way as uint8. Prints JSON.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # `python tools/bench_...`

import click
import torch

from stages.base import Job
from stages.eden.denoiser import TIMES
from stages.eden.geometry import Grid
from stages.eden.model import Eden, load_eden
from stages.eden.noise import pair_noise
from stages.eden.yuv import planes_to_rgb, rgb_to_planes
from stages.window import VideoFacts

NUM_HELD = 17  # different frames


def facts_of(width: int, height: int) -> VideoFacts:
    """Return the facts of two frames of this size."""
    even = width % 2 == 0 and height % 2 == 0
    return VideoFacts(
        job=Job(input="", output="", work_dir=""),
        width=width,
        height=height,
        num_frames=2,
        pairs_per_item=1,
        pixel_format="yuv420p" if even else "yuv444p",
        color_matrix="bt709",
        color_range="limited",
    )


@torch.inference_mode()
def between(
    eden: Eden, grid: Grid, facts: VideoFacts, pair: torch.Tensor, noise: torch.Tensor
) -> torch.Tensor:
    """Return the frame between two, [1, color_bytes] uint8 on the host, of [2, frame_bytes]."""
    rgb = planes_to_rgb(pair.to(eden.device), facts)
    encoded = eden.encode(rgb, grid)
    latents = noise.to(eden.device)
    modulations = eden.denoiser.modulations(encoded.difference)
    for step, modulation in enumerate(modulations):
        frames = eden.denoiser.project(encoded.tokens_dit)  # again: nothing is kept for the next
        velocity = eden.denoiser.velocity(latents, modulation, frames, grid)
        latents = latents + (TIMES[step + 1] - TIMES[step]) * velocity
    shown = eden.decoder.decode(latents, encoded.tokens_dec, encoded.stats, grid)
    planes = torch.empty((1, facts.color_bytes), dtype=torch.uint8, device=eden.device)
    rgb_to_planes(shown, facts, out=planes)
    return planes.cpu()


def times_ms(weights: str, facts: VideoFacts, *, device: str, pairs: int) -> list[float]:
    """Return what each pair took, in ms, without the first three."""
    eden = load_eden(weights, device=device)
    grid = eden.grid(facts.height, facts.width)
    shape = (grid.geometry.num_latents, eden.architecture.latent)
    torch.manual_seed(0)
    frames = torch.randint(16, 236, (NUM_HELD, facts.frame_bytes), dtype=torch.uint8)
    took = []
    for number in range(pairs + 3):
        place = number % (NUM_HELD - 1)
        began = time.perf_counter()
        noise = pair_noise(0, number, shape)[None]
        between(eden, grid, facts, frames[place : place + 2], noise)  # its copy waits for it all
        took.append((time.perf_counter() - began) * 1e3)
    return took[3:]


@click.command()
@click.option("--weights", default="random:0", show_default=True)
@click.option("--device", default="cuda", show_default=True)
@click.option("--width", default=720, show_default=True)
@click.option("--height", default=480, show_default=True)
@click.option("--pairs", type=click.IntRange(min=1), default=64, show_default=True)
def main(weights: str, device: str, width: int, height: int, pairs: int) -> None:
    """Measure the loop of the published code, written with the plain layers of stages/eden."""
    facts = facts_of(width, height)
    took = times_ms(weights, facts, device=device, pairs=pairs)
    click.echo(
        json.dumps({"ms_a_pair": median(took), "times_ms": took, "torch": torch.__version__})
    )


if __name__ == "__main__":
    main()
