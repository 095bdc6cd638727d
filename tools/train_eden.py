"""Trains a small EDEN on rendered scenes: tokenizer, velocity model, then both as they are used.

    python tools/train_eden.py tools/train_eden.yaml OUT --minutes 9 --device cuda

OUT holds what a run needs to go on: `eden.safetensors` (averaged weights in the published form,
16 bits, with sizes and constants; the stages load it as it is), `encoder.safetensors` (of the
middle frame, used in training only), `state.json`, `loss.csv` and `loss.svg`. A run that finds them
goes on, with a fresh optimizer that warms up again. It saves every few minutes and when it is
interrupted, and never weights that are not finite.
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # `python tools/train_eden.py`

import click
import torch

from stages.base import UserError
from stages.eden.architecture import Architecture, Constants
from tools.eden_command import Device, say_photographs, start
from tools.eden_data import Paint
from tools.eden_kept import Kept
from tools.eden_lesson import Lesson
from tools.eden_net import Tensors
from tools.eden_optim import encoder_shapes, first_values
from tools.eden_plan import read_plan
from tools.eden_textures import TRAINED, Dice, photographs


class Training:
    """One run: loads what there is, trains until the clock or the plan says stop, saves."""

    def __init__(
        self, plan: Mapping[str, Any], out: Path, device: torch.device, save_every_s: float = 300.0
    ) -> None:
        """Load what lies in `out`.

        Raises:
            UserError: it is damaged, or of another model than the plan's.
        """
        self._started = self._saved = time.monotonic()
        self._plan, self._kept, self._device = plan, Kept(out), device
        self._save_every_s = save_every_s
        self.state = self._kept.read_state()
        self._rows = self._kept.read_losses(self.state)
        self._seconds_before = self.state.seconds
        self._seed = plan["seed"] + 1000 * self.state.steps
        self._architecture, self._weights = self._load()
        found = photographs(TRAINED)
        say_photographs(found, TRAINED)
        pictures = [picture.to(device) for picture in found.values()]
        self._paint = Paint(Dice(self._generator(1)), pictures, plan["data"]["stock"])
        self._lesson: Lesson | None = None
        self._losses: list[torch.Tensor] = []  # since the last line of the table
        self._gains: list[torch.Tensor] = []
        out.mkdir(parents=True, exist_ok=True)

    def _generator(self, which: int) -> torch.Generator:
        return torch.Generator(self._device).manual_seed(self._seed + which)

    def _load(self) -> tuple[Architecture, Tensors]:
        architecture = Architecture(
            **self._plan["model"], constants=Constants(vae_scaler=1.0, vae_shift=0.0)
        )
        shapes = architecture.shapes() | encoder_shapes(architecture, self._plan["encoder_depth"])
        if self.state.steps:
            architecture, stored = self._kept.read_weights(self._plan["model"])
            if {name: tuple(weight.shape) for name, weight in stored.items()} != shapes:
                raise UserError(
                    f"{self._kept.folder / 'encoder.safetensors'} is not of the plan's"
                    f" `encoder_depth`, {self._plan['encoder_depth']}"
                )
        else:
            depth = architecture.dit_depth + architecture.decoder_depth
            stored = first_values(shapes, depth, self._plan["seed"])
        weights = {name: stored[name].to(self._device, torch.float32) for name in shapes}
        return architecture, weights

    def run(self, minutes: float) -> None:
        """Train what is left of the plan, for so long at most; save now and then, and at the end.

        Raises:
            UserError: the loss or a weight is not finite; what was saved before stays.
        """
        until = self._started + 60 * minutes
        try:
            while self.state.phase < len(self._plan["phases"]) and time.monotonic() < until:
                settings = self._plan["phases"][self.state.phase]
                self._lesson = self._start(settings)
                self._teach(self._lesson, settings, until)
                self._check_losses()
                self._weights |= self._lesson.average.weights
                if self.state.step >= settings["steps"]:
                    self._end(self._lesson, settings)
                self._lesson = None
        finally:
            self._save()

    def _start(self, settings: Mapping[str, Any]) -> Lesson:
        generator = self._generator(2 + self.state.phase)
        place = self._paint, generator
        self._losses, self._gains = [], []
        if not self.state.steps:
            first = Lesson(settings, self._plan, self._architecture, self._weights, *place)
            self._architecture = replace(self._architecture, constants=first.measure_difference())
        return Lesson(settings, self._plan, self._architecture, self._weights, *place)

    def _end(self, lesson: Lesson, settings: Mapping[str, Any]) -> None:
        if settings["train"] == "tokenizer":
            self._architecture = replace(self._architecture, constants=lesson.measure_latents())
        self.state.phase += 1
        self.state.step = 0

    def _teach(self, lesson: Lesson, settings: Mapping[str, Any], until: float) -> None:
        warm = 0
        while self.state.step < settings["steps"] and time.monotonic() < until:
            warm += 1
            rate = _rate(settings, self.state.step / settings["steps"])
            lesson.step(rate * min(1.0, warm / self._plan["warmup"]))
            self._losses.append(lesson.loss.clone())
            self._gains.append(lesson.gain.clone())
            self.state.step += 1
            self.state.steps += 1
            if self.state.step % self._plan["log_every"] == 0:
                self._log(settings["train"])
            if time.monotonic() - self._saved >= self._save_every_s:
                self._save()

    def _log(self, phase: str) -> None:
        self._check_losses()
        loss, gain = (float(torch.stack(some).mean()) for some in (self._losses, self._gains))
        self._rows.append((phase, self.state.steps, loss))
        self._losses, self._gains = [], []
        passed = time.monotonic() - self._started
        step = f"{phase} {self.state.step:6d}"
        print(f"{step}  loss {loss:.5f}  {gain:+.2f} dB  {passed:6.1f} s", flush=True)

    def _check_losses(self) -> None:
        if self._losses and not torch.stack(self._losses).isfinite().all():
            raise UserError(
                f"the loss is not finite, at step {self.state.step} of phase {self.state.phase + 1}"
                " or shortly before: nothing of that is saved; a lower `rate` may help"
            )

    def _save(self) -> None:
        self._check_losses()
        self._saved = time.monotonic()
        self.state.seconds = self._seconds_before + self._saved - self._started
        averaged = self._lesson.average.weights if self._lesson else {}
        self._kept.save(self.state, self._architecture, self._weights | averaged, self._rows)


def _rate(settings: Mapping[str, Any], share: float) -> float:
    high, low = settings["rate"]
    return float(low + (high - low) * (1 + math.cos(math.pi * share)) / 2)


@click.command()
@click.argument("plan", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.argument("out", type=click.Path(file_okay=False, path_type=Path))
@click.option(
    "--minutes",
    type=click.FloatRange(min=0),
    default=600.0,
    show_default=True,
    help="Stop and save after so long.",
)
@click.option(
    "--save-minutes",
    type=click.FloatRange(min=0),
    default=5.0,
    show_default=True,
    help="Save so often while it runs.",
)
@click.option("--device", type=Device(), default="cpu", show_default=True)
def main(plan: Path, out: Path, minutes: float, save_minutes: float, device: str) -> None:
    """Train by the YAML file PLAN; keep everything in OUT, and go on from what lies there."""
    torch.set_float32_matmul_precision("high")
    if device.startswith("cuda"):
        torch._dynamo.config.recompile_limit = 64  # sizes, phases, with gradients and without
    training = Training(read_plan(plan), out, torch.device(device), 60 * save_minutes)
    training.run(minutes)
    print(f"{training.state}")


if __name__ == "__main__":
    start(main)
