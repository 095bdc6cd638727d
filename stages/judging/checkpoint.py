"""What a Qwen3-VL checkpoint says of itself: a folder as its publisher has it, no tensor read.

A plan asks before anything is loaded, so this needs neither torch nor transformers.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

from stages.base import UserError
from stages.judging.presets import PRESETS, parse_random

KINDS = ("qwen3_vl", "qwen3_vl_moe")

_WHERE_TO_GET = (
    "get one with: hf download Qwen/Qwen3-VL-8B-Instruct --local-dir FOLDER, or use random:0"
)
_MAX_JSON_BYTES = 64 * 2**20  # of an index; a header of 30B-A3B has 4 MiB
_PICKLED = ("*.bin", "*.pt", "*.pth", "*.ckpt")
_NEEDED = (("preprocessor_config.json", "processor_config.json"), ("tokenizer_config.json",))


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """What a judge is made of."""

    is_moe: bool
    num_parameters: int
    hidden: int  # of the language model
    layers: int
    kv_width: int  # numbers of one token in one layer's cache
    widest: int  # of the activations of one token
    deepstack: int  # how many layers of the vision tower are handed over beside the last
    vision_widest: int


def read_checkpoint(model: str) -> Checkpoint:
    """Return what `model` is: a folder, or `random:SEED[:PRESET]`.

    Raises:
        UserError: there is no such folder, or what lies there is no Qwen3-VL in safetensors.
    """
    if model.startswith("random:"):
        _, name = parse_random(model)
        return _described(PRESETS[name].config(), PRESETS[name].parameters)
    folder = Path(model)
    try:
        config = _read_config(folder)
        return _described(config, _num_parameters(folder))
    except UserError as error:
        raise UserError(f"weights {model}: {error}") from error
    except OSError as error:
        raise UserError(f"weights {model}: cannot be read: {error}") from error


def weight_files(folder: Path) -> list[Path]:
    """Return the safetensors files of the weights.

    Raises:
        UserError: there are none, or one that the index names is missing.
    """
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        named = _json_of(index).get("weight_map")
        if not isinstance(named, dict) or not named:
            raise UserError(f"{index.name} has no weight_map")
        files = [folder / str(name) for name in sorted(set(map(str, named.values())))]
    else:
        files = [folder / "model.safetensors"]
    missing = [file.name for file in files if not file.is_file()]
    if not missing:
        return files
    if not index.is_file() and any(any(folder.glob(pattern)) for pattern in _PICKLED):
        raise UserError(
            "its weights are pickled, which may run any code; get the safetensors of it"
        )
    raise UserError(f"no file {missing[0]}; the download is not whole")


def _read_config(folder: Path) -> Mapping[str, Any]:
    if not folder.is_dir():
        raise UserError(f"no such folder; {_WHERE_TO_GET}")
    path = folder / "config.json"
    if not path.is_file():
        raise UserError(f"no config.json in it; {_WHERE_TO_GET}")
    config = _json_of(path)
    kind = config.get("model_type")
    if kind not in KINDS:
        raise UserError(f"its model_type is {kind!r}, not one of {', '.join(KINDS)}")
    for names in _NEEDED:
        if not any((folder / name).is_file() for name in names):
            raise UserError(f"no {names[0]} in it; the download is not whole")
    return config


def _json_of(path: Path) -> dict[str, Any]:
    if path.stat().st_size > _MAX_JSON_BYTES:
        raise UserError(f"{path.name} has {path.stat().st_size} bytes; it is no such file")
    try:
        value = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path.name} is no JSON: {error}") from error
    if not isinstance(value, dict):
        raise UserError(f"{path.name} is no JSON object")
    return value


def _num_parameters(folder: Path) -> int:
    return sum(_numbers_in(file) for file in weight_files(folder))


def _numbers_in(file: Path) -> int:
    """Return how many numbers a safetensors file holds, by its header."""
    with file.open("rb") as stream:
        start = stream.read(8)
        size = struct.unpack("<Q", start)[0] if len(start) == 8 else 0
        if not 2 <= size <= min(_MAX_JSON_BYTES, file.stat().st_size - 8):
            raise UserError(f"{file.name} is no safetensors file, or only a part of one")
        text = stream.read(size)
    try:
        header = json.loads(text)
        tensors = [header[name] for name in header if name != "__metadata__"]
        ends = [tensor["data_offsets"][1] for tensor in tensors]
        numbers = sum(prod(tensor["shape"]) for tensor in tensors)
    except (ValueError, RecursionError, TypeError, LookupError) as error:
        raise UserError(f"{file.name} has no header of safetensors") from error
    if 8 + size + max(ends, default=0) != file.stat().st_size:
        raise UserError(f"{file.name} is cut short")
    return int(numbers)


def _described(config: Mapping[str, Any], num_parameters: int) -> Checkpoint:
    text, vision = config.get("text_config"), config.get("vision_config")
    if not isinstance(text, Mapping) or not isinstance(vision, Mapping):
        raise UserError("its config.json has no text_config and vision_config")
    heads = _number(text, "num_attention_heads")
    head = _number(text, "head_dim", _number(text, "hidden_size") // heads)
    width = _number(text, "intermediate_size")
    if config["model_type"] == "qwen3_vl_moe":
        width = _number(text, "moe_intermediate_size") * _number(text, "num_experts_per_tok")
    deepstack = vision.get("deepstack_visual_indexes")
    return Checkpoint(
        is_moe=config["model_type"] == "qwen3_vl_moe",
        num_parameters=num_parameters,
        hidden=_number(text, "hidden_size"),
        layers=_number(text, "num_hidden_layers"),
        kv_width=2 * _number(text, "num_key_value_heads", heads) * head,
        widest=2 * width + 4 * _number(text, "hidden_size"),
        deepstack=len(deepstack) if isinstance(deepstack, list) else 3,
        vision_widest=2 * _number(vision, "intermediate_size") + 8 * _number(vision, "hidden_size"),
    )


def _number(settings: Mapping[str, Any], name: str, default: int | None = None) -> int:
    value = settings.get(name, default)
    if not isinstance(value, int) or value < 1:
        raise UserError(f"its config.json has no {name}")
    return value
