"""Weights of EDEN from a file or a seed: first what model it is, then only the tensors asked for.

Three spellings of `weights`:

    path/eden.pt           the published form, `{"eden": state_dict}`
    path/x.safetensors     the same names; `num_heads` and constants in its metadata
    random:SEED[:PRESET]   random weights of the size `full` (default), `small` or `tiny`

No tensor's shape tells the number of heads: it comes from the safetensors metadata, from
`model_args` in a JSON file of the same name beside the checkpoint, or is one per 64 channels.
"""

from __future__ import annotations

import json
import math
import os
import pickle
import re
import struct
import zipfile
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from stages.base import UserError
from stages.eden.architecture import PRESETS, Architecture, Constants, infer
from stages.eden.random_weights import random_tensor

_WHERE_TO_GET = (
    "fetch eden.pt from the model repo zhZ524/EDEN (hf download zhZ524/EDEN eden.pt --local-dir"
    " checkpoints) and set weights to its path, or use random:0"
)
# What torch raises for a file cut short or made up.
_BROKEN = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    EOFError,
    ImportError,
    LookupError,
    MemoryError,
    RuntimeError,
    TypeError,
    ValueError,
    struct.error,
)
_MAX_SIDECAR_BYTES = 2**20
_READERS = min(16, os.cpu_count() or 1)
_FLOATS = ("F32", "F16", "BF16", "F64")
_DTYPES = (torch.float32, torch.float16, torch.bfloat16, torch.float64)


@dataclass(frozen=True, slots=True)
class _Opened:
    """What model it is, and how to get one tensor of it."""

    architecture: Architecture
    read: Callable[[str], torch.Tensor]


def read_architecture(weights: str) -> Architecture:
    """Return what model `weights` is, from names and shapes; no tensor is read.

    Raises:
        UserError: the file is missing, no checkpoint, or that of another model.
    """
    return _open(weights).architecture


def read_tensors(weights: str, prefixes: Sequence[str]) -> dict[str, torch.Tensor]:
    """Return the tensors whose names are, or start with, one of `prefixes`; the others stay unread.

    Raises:
        UserError: the file is missing, no checkpoint, or that of another model, or holds numbers
            that are not finite: every frame would be made of these.
    """
    opened = _open(weights)
    wanted = tuple(f"{prefix}." for prefix in prefixes)
    names = [name for name in opened.architecture.shapes() if name.startswith(wanted)]
    with ThreadPoolExecutor(_READERS) as readers:  # random weights take a core a second
        tensors = dict(zip(names, readers.map(opened.read, names), strict=True))
        is_finite = readers.map(lambda tensor: bool(tensor.isfinite().all()), tensors.values())
    if odd := [name for name, finite in zip(names, is_finite, strict=True) if not finite]:
        raise UserError(f"weights {weights}: tensor {odd[0]} has numbers that are not finite")
    return tensors


def _open(weights: str) -> _Opened:
    if weights.startswith("random:"):
        return _open_random(weights)
    path = Path(weights)
    if not path.is_file():
        raise UserError(f"weights {weights}: no such file; {_WHERE_TO_GET}")
    try:
        return _open_safetensors(path) if path.suffix == ".safetensors" else _open_torch(path)
    except OSError as error:
        raise UserError(f"weights {weights}: cannot be read: {error}") from error
    except UserError as error:
        raise UserError(f"weights {weights}: {error}") from error


def _open_random(weights: str) -> _Opened:
    match = re.fullmatch(r"random:([0-9]+)(?::([a-z]+))?", weights)
    if match is None or (match[2] or "full") not in PRESETS:
        raise UserError(
            f"weights {weights}: write random:SEED or random:SEED:PRESET,"
            f" PRESET one of {', '.join(PRESETS)}"
        )
    architecture = PRESETS[match[2] or "full"]
    return _Opened(architecture, partial(random_tensor, architecture, int(match[1])))


def _open_safetensors(path: Path) -> _Opened:
    try:
        file: Any = safe_open(path, framework="pt")
        slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118 - no dict
    except SafetensorError as error:
        raise UserError(f"not a safetensors file: {error}") from error
    shapes = {name: tuple(part.get_shape()) for name, part in slices.items()}
    if odd := [name for name, part in slices.items() if part.get_dtype() not in _FLOATS]:
        raise UserError(f"not an EDEN model: tensor {odd[0]} holds no floating point numbers")
    settings = {**_read_sidecar(path), **(file.metadata() or {})}
    architecture = infer(shapes, _num_heads(settings), _constants(settings))
    return _Opened(architecture, file.get_tensor)


def _open_torch(path: Path) -> _Opened:
    state = _load_state(path)
    shapes = {name: tuple(tensor.shape) for name, tensor in state.items()}
    settings = _read_sidecar(path)
    architecture = infer(shapes, _num_heads(settings), _constants(settings))
    return _Opened(architecture, state.__getitem__)


def _load_state(path: Path) -> dict[str, torch.Tensor]:
    _check_archive(path)
    try:
        loaded = torch.load(path, map_location="cpu", mmap=True, weights_only=True)
    except pickle.UnpicklingError as error:
        raise UserError("carries code or objects beside tensors; refused unread") from error
    except _BROKEN as error:
        reason = str(error).split("\n")[0]
        raise UserError(f"not a PyTorch checkpoint: {type(error).__name__}: {reason}") from error
    if not isinstance(loaded, dict) or not isinstance(loaded.get("eden"), dict):
        raise UserError('not an EDEN checkpoint: it has no state dict called "eden"')
    state: dict[Any, Any] = loaded["eden"]
    for name, tensor in state.items():
        _check_tensor(name, tensor)
    claimed = sum(tensor.numel() * tensor.element_size() for tensor in state.values())
    if claimed > path.stat().st_size:  # one number can be told to stand for any tensor
        raise UserError(f"not an EDEN model: its tensors claim {claimed} bytes, more than the file")
    return state


def _check_archive(path: Path) -> None:
    """Refuse what is no archive, and one that would unpack to more than it is: torch packs none."""
    try:
        with zipfile.ZipFile(path) as archive:
            is_packed = any(i.compress_type != zipfile.ZIP_STORED for i in archive.infolist())
    except (zipfile.BadZipFile, *_BROKEN) as error:
        raise UserError("not a PyTorch checkpoint, or only a part of one") from error
    if is_packed:
        raise UserError("not a PyTorch checkpoint: an archive with packed records")


def _check_tensor(name: object, tensor: object) -> None:
    if not isinstance(name, str):
        raise UserError(f"not an EDEN model: {name!r} is no name of a tensor")
    if not isinstance(tensor, torch.Tensor):
        raise UserError(f"not an EDEN model: {name} is a {type(tensor).__name__}, not a tensor")
    is_here = tensor.layout == torch.strided and tensor.device.type == "cpu"
    if not is_here or tensor.dtype not in _DTYPES:
        raise UserError(f"not an EDEN model: tensor {name} holds no floating point numbers")


def _read_sidecar(path: Path) -> dict[str, Any]:
    sidecar = path.with_suffix(".json")
    if not sidecar.is_file():
        return {}
    try:
        with sidecar.open("rb") as file:
            settings = json.loads(file.read(_MAX_SIDECAR_BYTES))
    except (ValueError, RecursionError) as error:
        raise UserError(f"{sidecar.name} beside it is no JSON: {error}") from error
    if not isinstance(settings, dict) or not isinstance(settings.get("model_args", {}), dict):
        raise UserError(f"{sidecar.name} beside it is no object with model_args")
    return {**settings, **settings.get("model_args", {})}


def _num_heads(settings: Mapping[str, Any]) -> int | None:
    if "num_heads" not in settings:
        return None
    number = _number(settings, "num_heads")
    if not number.is_integer():
        raise UserError(f"num_heads = {number} is no whole number")
    return int(number)


def _constants(settings: Mapping[str, Any]) -> Constants:
    names = [known.name for known in fields(Constants) if known.name in settings]
    constants = Constants(**{name: _number(settings, name) for name in names})
    if 0.0 in (constants.cos_sim_std, constants.vae_scaler):
        raise UserError("cos_sim_std and vae_scaler divide: neither may be 0")
    return constants


def _number(settings: Mapping[str, Any], name: str) -> float:
    try:
        number = float(settings[name])
    except (TypeError, ValueError, OverflowError) as error:
        raise UserError(f"{name} = {settings[name]!r} is no number") from error
    if not math.isfinite(number):
        raise UserError(f"{name} = {number} is no finite number")
    return number
