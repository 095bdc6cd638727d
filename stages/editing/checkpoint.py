"""A diffusers pipeline's folder, as far as it can be known without diffusers: classes and sizes.

Two spellings of `weights`:

    checkpoints/qwen-image-edit   a folder with `model_index.json`, as `hf download` makes it
    random:SEED[:PRESET]          random weights; PRESET is one of `published.PRESETS`, else `full`

Only safetensors are read: a pickled file runs what is in it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import prod
from pathlib import Path
from typing import Any

from stages.base import UserError
from stages.editing.published import PLUS, PRESETS, Preset

_MAX_JSON_BYTES = 2**26  # a header of a shard has about 100 KiB
_PICKLED = (".bin", ".ckpt", ".pt", ".pth", ".pkl")
_LIBRARIES = ("diffusers", "transformers")
_WHERE_TO_GET = (
    "fetch one (hf download Qwen/Qwen-Image-Edit --local-dir checkpoints/qwen-image-edit) and set"
    " weights to its folder, or use random:0"
)
_TO_EDIT_WHOLE = "stages.editing:EditWhole takes any pipeline of diffusers by its class"


@dataclass(frozen=True)
class Checkpoint:
    """What `weights` is, read from its JSON files and the headers of its tensors."""

    weights: str
    pipeline: str  # class of diffusers
    seed: int = 0  # of random weights
    preset: Preset | None = None  # of random weights, else there is a folder

    @property
    def is_plus(self) -> bool:
        """Whether it is of 2509 or 2511."""
        return self.pipeline == PLUS

    @property
    def transformer(self) -> Mapping[str, Any]:
        """Configuration numbers of the transformer."""
        return self.preset.transformer if self.preset else self._config("transformer")

    @property
    def vae(self) -> Mapping[str, Any]:
        """Configuration numbers of the VAE."""
        return self.preset.vae if self.preset else self._config("vae")

    @cached_property
    def text_width(self) -> int:
        """Channels of a prompt's token."""
        return self._number(self._text(), "text_encoder", "hidden_size")

    @cached_property
    def image_token_side(self) -> int:
        """Pixels along a side of what is one token of a picture to the text encoder."""
        vision = self.preset.vision if self.preset else self._part("vision_config")
        sides = (
            self._number(vision, "text_encoder", name)
            for name in ("patch_size", "spatial_merge_size")
        )
        return prod(sides)

    def num_parameters(self, *components: str) -> int:
        """Return how many numbers these components have.

        Raises:
            UserError: files are missing, pickled or cut short.
        """
        if self.preset:
            return sum(self.preset.parameters[name] for name in components)
        return sum(self._count(name) for name in components)

    def folder(self, component: str) -> Path:
        """Return where the files of a component lie."""
        return Path(self.weights) / component

    def components_with_weights(self) -> tuple[str, ...]:
        """Return the components, as the pipeline's index names them, that have files of tensors.

        Raises:
            UserError: one would run code of the checkpoint's own.
        """
        folder = Path(self.weights)
        names = []
        for name, entry in _read_json(self.weights, folder / "model_index.json").items():
            if not isinstance(entry, list) or entry in ([None, None], []):
                continue
            if entry[0] not in _LIBRARIES or Path(name).name != name:
                raise UserError(f"weights {self.weights}: {name} is code of its own: {entry[0]}")
            if _has_tensors(folder / name):
                names.append(name)
        return tuple(names)

    def _text(self) -> Mapping[str, Any]:
        if self.preset:
            return self.preset.text
        config = self._config("text_encoder")  # an older one has all on one level
        text = config.get("text_config")
        return text if isinstance(text, dict) else config

    def _part(self, name: str) -> Mapping[str, Any]:
        part = self._config("text_encoder").get(name)
        if not isinstance(part, dict):
            raise UserError(f"weights {self.weights}: text_encoder/config.json has no {name}")
        return part

    def _config(self, component: str) -> Mapping[str, Any]:
        return _read_json(self.weights, self.folder(component) / "config.json")

    def _number(self, config: Mapping[str, Any], component: str, name: str) -> int:
        value = config.get(name)
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise UserError(
                f"weights {self.weights}: {component}/config.json has {name} = {value!r}"
            )
        return value

    def _count(self, component: str) -> int:
        return sum(
            _parameters_in(self.weights, file)
            for file in _tensor_files(self.weights, self.folder(component))
        )


def open_checkpoint(weights: str, takes: Sequence[str]) -> Checkpoint:
    """Return what `weights` is; no tensor is read.

    Raises:
        UserError: it is missing, no pipeline of diffusers, or none of the classes `takes`.
    """
    if weights.startswith("random:"):
        return _open_random(weights, takes)
    folder = Path(weights)
    if not folder.is_dir():
        raise UserError(f"weights {weights}: no such folder; {_WHERE_TO_GET}")
    if not (folder / "model_index.json").is_file():
        raise UserError(f"weights {weights}: no pipeline of diffusers: it has no model_index.json")
    found = _read_json(weights, folder / "model_index.json").get("_class_name")
    if not isinstance(found, str):
        raise UserError(f"weights {weights}: model_index.json names no class")
    return _if_taken(Checkpoint(weights, found), takes)


def _if_taken(found: Checkpoint, takes: Sequence[str]) -> Checkpoint:
    if found.pipeline in takes:
        return found
    way_out = _TO_EDIT_WHOLE if len(takes) > 1 else f"set pipeline: {found.pipeline}, if it edits"
    raise UserError(
        f"weights {found.weights}: a {found.pipeline}, where {' or '.join(takes)} is wanted;"
        f" {way_out}"
    )


def _open_random(weights: str, takes: Sequence[str]) -> Checkpoint:
    match = re.fullmatch(r"random:([0-9]{1,18})(?::([a-z0-9]+))?", weights)
    if match is None or (match[2] or "full") not in PRESETS:
        raise UserError(
            f"weights {weights}: write random:SEED or random:SEED:PRESET,"
            f" PRESET one of {', '.join(PRESETS)}"
        )
    preset = PRESETS[match[2] or "full"]
    return _if_taken(Checkpoint(weights, preset.pipeline, int(match[1]), preset), takes)


def _tensor_files(weights: str, folder: Path) -> list[Path]:
    """Return the files that diffusers and transformers read of a component."""
    if not folder.is_dir():
        raise UserError(f"weights {weights}: it has no {folder.name}/")
    for stem in ("diffusion_pytorch_model", "model"):
        index = folder / f"{stem}.safetensors.index.json"
        if index.is_file():
            return _shards(weights, index)
        if (whole := folder / f"{stem}.safetensors").is_file():
            return [whole]
    pickled = sorted(path.name for path in folder.iterdir() if path.suffix in _PICKLED)
    if pickled:
        raise UserError(
            f"weights {weights}: {folder.name}/{pickled[0]} is pickled, which can run code;"
            " only safetensors are read: convert it, or fetch it in that form"
        )
    raise UserError(f"weights {weights}: {folder.name}/ has no safetensors")


def _has_tensors(folder: Path) -> bool:
    kinds = {".safetensors", *_PICKLED}
    return folder.is_dir() and any(path.suffix in kinds for path in folder.iterdir())


def _shards(weights: str, index: Path) -> list[Path]:
    places = _read_json(weights, index).get("weight_map")
    if not isinstance(places, dict) or not places:
        raise UserError(f"weights {weights}: {_short(index)} has no weight_map")
    files = [index.with_name(Path(str(name)).name) for name in sorted(set(places.values()))]
    if missing := [file for file in files if not file.is_file()]:
        raise UserError(f"weights {weights}: {_short(missing[0])} is missing; fetch it again")
    return files


def _parameters_in(weights: str, file: Path) -> int:
    """Return how many numbers a safetensors file has: 8 bytes of length, JSON, then the data."""
    size = file.stat().st_size
    with file.open("rb") as opened:
        length = int.from_bytes(opened.read(8), "little")
        if size < 8 or length > min(size - 8, _MAX_JSON_BYTES):
            raise UserError(f"weights {weights}: {_short(file)} is no safetensors file")
        header = _parse(weights, file, opened.read(length))
    header.pop("__metadata__", None)
    try:
        end = max((int(entry["data_offsets"][1]) for entry in header.values()), default=0)
        count = sum(prod(int(side) for side in entry["shape"]) for entry in header.values())
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise UserError(f"weights {weights}: {_short(file)} is no safetensors file") from error
    if 8 + length + end > size:
        raise UserError(f"weights {weights}: {_short(file)} is cut short; fetch it again")
    return count


def _read_json(weights: str, path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            text = file.read(_MAX_JSON_BYTES)
    except OSError as error:
        reason = error.strerror or str(error)
        raise UserError(f"weights {weights}: {_short(path)}: {reason}") from error
    return _parse(weights, path, text)


def _parse(weights: str, path: Path, text: bytes) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UserError(f"weights {weights}: {_short(path)} has no sound JSON: {error}") from error
    if not isinstance(found, dict):
        raise UserError(f"weights {weights}: {_short(path)} is no JSON object")
    return found


def _short(path: Path) -> str:
    return f"{path.parent.name}/{path.name}"
