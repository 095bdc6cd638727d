"""What a training keeps in its folder between two runs: state, weights and the table of losses.

Every file is written under another name first; when all are whole they are renamed, `state.json`
last. So a run killed meanwhile leaves whole files, at worst weights some steps ahead of the state.
Losses of steps after the state's are left out when read, as those steps are trained again.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from stages.base import UserError
from stages.eden.architecture import Architecture
from stages.eden.checkpoint import read_architecture
from tools.eden_net import Tensors
from tools.eden_plot import Row, plot_losses, read_losses, write_losses


@dataclass(slots=True)
class State:
    """How far a training is."""

    phase: int = 0
    step: int = 0  # of the phase
    steps: int = 0  # of all phases
    seconds: float = 0.0  # of all runs


class Kept:
    """One folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._state, self._weights = folder / "state.json", folder / "eden.safetensors"
        self._encoder, self._losses = folder / "encoder.safetensors", folder / "loss.csv"

    def read_state(self) -> State:
        """Return how far the runs before came; nowhere, if nothing lies there.

        Raises:
            UserError: weights or losses lie there without a whole `state.json`.
        """
        if not self._state.exists():
            for path in (self._weights, self._encoder, self._losses):
                if path.exists():
                    raise UserError(
                        f"{self._state} is missing beside {path.name}: to begin anew, give an"
                        " empty folder"
                    )
            return State()
        try:
            state = State(**json.loads(self._state.read_text()))
            counts = (state.phase, state.step, state.steps)
            if not all(type(count) is int and count >= 0 for count in counts):
                raise ValueError("a count is no whole number")
            return state
        except (ValueError, TypeError) as error:
            raise UserError(
                f"{self._state} is damaged ({error}): to begin anew, give an empty folder"
            ) from error

    def read_losses(self, state: State) -> list[Row]:
        """Return the losses up to this state."""
        if not self._losses.exists():
            return []
        try:
            return [row for row in read_losses(self._losses) if row[1] <= state.steps]
        except (KeyError, ValueError, TypeError) as error:
            raise UserError(f"{self._losses} is no table of losses: {error!r}") from error

    def read_weights(self, model: Mapping[str, int]) -> tuple[Architecture, Tensors]:
        """Return what was trained so far, on the CPU.

        Raises:
            UserError: it is missing, damaged, or of another `model` than the plan's.
        """
        architecture = read_architecture(str(self._weights))
        for name, asked in model.items():
            there = getattr(architecture, name)
            if there != asked:
                raise UserError(
                    f"{self._weights} has {name} {there}, the plan has {asked}: give that plan or"
                    " an empty folder"
                )
        try:
            return architecture, load_file(self._weights) | load_file(self._encoder)
        except (OSError, SafetensorError) as error:
            raise UserError(f"{self.folder}: the weights cannot be read: {error}") from error

    def save(
        self, state: State, architecture: Architecture, weights: Tensors, losses: list[Row]
    ) -> None:
        """Replace all files.

        Raises:
            UserError: a weight is no finite number in 16 bits; the files stay as they are.
        """
        half = {n: w.detach().to("cpu", torch.float16) for n, w in weights.items()}
        if odd := [name for name, weight in half.items() if not weight.isfinite().all()]:
            raise UserError(
                f"{len(odd)} tensors, {odd[0]} first, have weights that are not finite at step"
                f" {state.steps}: nothing is saved; a lower `rate` may help"
            )
        published = {name: half.pop(name) for name in architecture.shapes()}
        writers: dict[Path, Callable[[Path], object]] = {
            self._weights: lambda path: save_file(published, path, architecture.metadata()),
            self._encoder: lambda path: save_file(half, path),
            self._losses: lambda path: write_losses(path, losses),
            self.folder / "loss.svg": lambda path: plot_losses(losses, path),
            self._state: lambda path: path.write_text(json.dumps(asdict(state)) + "\n"),
        }
        parts = {path: path.with_name(f"{path.name}.part") for path in writers}
        for path, write in writers.items():
            write(parts[path])
        for path, part in parts.items():
            part.replace(path)
