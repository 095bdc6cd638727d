"""Trains a small EDEN on rendered scenes: tokenizer, velocity model, then both as they are used.

    python tools/train_eden.py tools/train_eden.yaml OUT --minutes 9 --device cuda

OUT holds what a run needs to go on: `eden.safetensors` (averaged weights in the published form,
16 bits, with sizes and constants; the stages load it as it is), `encoder.safetensors` (of the
middle frame, used in training only), `state.json`, `loss.csv` and `loss.svg`. A run that finds them
goes on, with a fresh optimizer that warms up again.
"""

from __future__ import annotations

import json
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
import yaml
from safetensors.torch import load_file, save_file

from stages.eden.architecture import Architecture, Constants
from stages.eden.checkpoint import read_architecture
from tools.eden_data import Paint
from tools.eden_lesson import Lesson
from tools.eden_net import Tensors
from tools.eden_optim import encoder_shapes, first_values
from tools.eden_plot import append_losses, plot_losses
from tools.eden_textures import TRAINED, Dice, photographs


class Training:
    """One run: loads what there is, trains until the clock or the plan says stop, saves."""

    def __init__(self, plan: Mapping[str, Any], out: Path, device: torch.device) -> None:
        self._started = time.monotonic()
        self._plan, self._out, self._device = plan, out, device
        out.mkdir(parents=True, exist_ok=True)
        self.state = {"phase": 0, "step": 0, "steps": 0, "seconds": 0.0}
        if (out / "state.json").exists():
            self.state = json.loads((out / "state.json").read_text())
        self._seed = plan["seed"] + 1000 * self.state["steps"]
        pictures = [picture.to(device) for picture in photographs(TRAINED).values()]
        self._paint = Paint(Dice(self._generator(1)), pictures, plan["data"]["stock"])
        self._architecture, self._weights = self._load()

    def _generator(self, which: int) -> torch.Generator:
        return torch.Generator(self._device).manual_seed(self._seed + which)

    def _load(self) -> tuple[Architecture, Tensors]:
        architecture = Architecture(
            **self._plan["model"], constants=Constants(vae_scaler=1.0, vae_shift=0.0)
        )
        shapes = architecture.shapes() | encoder_shapes(architecture, self._plan["encoder_depth"])
        if self.state["steps"]:
            architecture = read_architecture(str(self._out / "eden.safetensors"))
            stored = load_file(self._out / "eden.safetensors")
            stored |= load_file(self._out / "encoder.safetensors")
        else:
            depth = architecture.dit_depth + architecture.decoder_depth
            stored = first_values(shapes, depth, self._plan["seed"])
        weights = {name: stored[name].to(self._device, torch.float32) for name in shapes}
        return architecture, weights

    def run(self, minutes: float) -> None:
        """Train what is left of the plan, for so long at most, and save."""
        until = self._started + 60 * minutes
        entries: list[tuple[str, int, float]] = []
        while self.state["phase"] < len(self._plan["phases"]) and time.monotonic() < until:
            settings = self._plan["phases"][self.state["phase"]]
            lesson = self._start(settings)
            entries += self._teach(lesson, settings, until)
            self._weights |= lesson.average.weights
            if self.state["step"] >= settings["steps"]:
                self._end(lesson, settings)
        self.state["seconds"] += time.monotonic() - self._started
        append_losses(self._out / "loss.csv", entries)
        self._save()

    def _start(self, settings: Mapping[str, Any]) -> Lesson:
        generator = self._generator(2 + self.state["phase"])
        place = self._paint, generator
        if not self.state["steps"]:
            first = Lesson(settings, self._plan, self._architecture, self._weights, *place)
            self._architecture = replace(self._architecture, constants=first.measure_difference())
        return Lesson(settings, self._plan, self._architecture, self._weights, *place)

    def _end(self, lesson: Lesson, settings: Mapping[str, Any]) -> None:
        if settings["train"] == "tokenizer":
            self._architecture = replace(self._architecture, constants=lesson.measure_latents())
        self.state["phase"] += 1
        self.state["step"] = 0

    def _teach(
        self, lesson: Lesson, settings: Mapping[str, Any], until: float
    ) -> list[tuple[str, int, float]]:
        """Train one phase; return its losses, as the table has them."""
        entries, losses, gains, warm = [], [], [], 0
        while self.state["step"] < settings["steps"] and time.monotonic() < until:
            warm += 1
            rate = _rate(settings, self.state["step"] / settings["steps"])
            lesson.step(rate * min(1.0, warm / self._plan["warmup"]))
            losses.append(lesson.loss.clone())
            gains.append(lesson.gain.clone())
            self.state["step"] += 1
            self.state["steps"] += 1
            if self.state["step"] % self._plan["log_every"] == 0:
                loss, gain = (float(torch.stack(some).mean()) for some in (losses, gains))
                entries.append((settings["train"], self.state["steps"], loss))
                self._say(settings["train"], loss, gain)
                losses, gains = [], []
        return entries

    def _say(self, phase: str, loss: float, gain: float) -> None:
        if not math.isfinite(loss):
            raise FloatingPointError(f"{phase}: the loss is {loss} at step {self.state['step']}")
        passed = time.monotonic() - self._started
        step = f"{phase} {self.state['step']:6d}"
        print(f"{step}  loss {loss:.5f}  {gain:+.2f} dB  {passed:6.1f} s", flush=True)

    def _save(self) -> None:
        half = {n: w.detach().to("cpu", torch.float16) for n, w in self._weights.items()}
        published = {name: half.pop(name) for name in self._architecture.shapes()}
        metadata = self._architecture.metadata()
        save_file(published, self._out / "eden.safetensors", metadata=metadata)
        save_file(half, self._out / "encoder.safetensors")
        (self._out / "state.json").write_text(json.dumps(self.state) + "\n")
        plot_losses(self._out / "loss.csv", self._out / "loss.svg")


def _rate(settings: Mapping[str, Any], share: float) -> float:
    high, low = settings["rate"]
    return float(low + (high - low) * (1 + math.cos(math.pi * share)) / 2)


@click.command()
@click.argument("plan", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.argument("out", type=click.Path(file_okay=False, path_type=Path))
@click.option("--minutes", default=600.0, show_default=True, help="Stop and save after so long.")
@click.option("--device", default="cpu", show_default=True)
def main(plan: Path, out: Path, minutes: float, device: str) -> None:
    """Train by the YAML file PLAN; keep everything in OUT, and go on from what lies there."""
    torch.set_float32_matmul_precision("high")
    if device.startswith("cuda"):
        torch._dynamo.config.recompile_limit = 64  # sizes, phases, with gradients and without
    training = Training(yaml.safe_load(plan.read_text()), out, torch.device(device))
    training.run(minutes)
    print(f"{training.state}")


if __name__ == "__main__":
    main()
