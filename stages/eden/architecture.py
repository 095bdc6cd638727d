"""The sizes and constants of one EDEN model, and the tensors a checkpoint of it must have.

Knows names and shapes only; no file, no tensor.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from stages.base import UserError

Shapes = Mapping[str, tuple[int, ...]]

TIMESTEP_FEATURES = 256
NUM_MODULATIONS = 6  # shift, scale, gate of the self attention, then of the MLP


@dataclass(frozen=True, slots=True, kw_only=True)
class Constants:
    """Numbers of the published evaluation configuration that are no weights."""

    cos_sim_mean: float = 0.990539
    cos_sim_std: float = 0.0608093
    vae_scaler: float = 0.179437
    vae_shift: float = 0.770202


@dataclass(frozen=True, slots=True, kw_only=True)
class Architecture:
    """The sizes of one EDEN model; the defaults are those of the published checkpoint."""

    hidden: int = 768
    num_heads: int = 12
    dit_depth: int = 12
    decoder_depth: int = 4
    mlp_hidden: int = 3072
    patch: int = 16  # pixels
    latent: int = 16  # channels
    constants: Constants = field(default_factory=Constants)

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Return name and shape of every tensor of the state dict."""
        shapes = self._outer_shapes()
        for name in self._block_names():
            shapes |= {f"{name}.{key}": shape for key, shape in self._block_shapes().items()}
        return shapes

    def metadata(self) -> dict[str, str]:
        """Return what a safetensors file has to say beside its tensors."""
        constants = self.constants
        return {
            "num_heads": str(self.num_heads),
            "cos_sim_mean": repr(constants.cos_sim_mean),
            "cos_sim_std": repr(constants.cos_sim_std),
            "vae_scaler": repr(constants.vae_scaler),
            "vae_shift": repr(constants.vae_shift),
        }

    def _block_names(self) -> list[str]:
        dit = [f"dit_blocks.{i}" for i in range(self.dit_depth)]
        return dit + [f"decoder_blocks.{i}" for i in range(self.decoder_depth)]

    def _block_shapes(self) -> dict[str, tuple[int, ...]]:
        hidden = self.hidden
        return {
            **_norm("norm_self_attn", hidden),
            **_norm("norm_temp_attn", hidden),
            **_norm("norm_mlp", hidden),
            **{f"{kind}.qkv.weight": (3 * hidden, hidden) for kind in ("self_attn", "temp_attn")},
            **{f"{kind}.proj.weight": (hidden, hidden) for kind in ("self_attn", "temp_attn")},
            **_linear("mlp.fc1", self.mlp_hidden, hidden),
            **_linear("mlp.fc2", hidden, self.mlp_hidden),
        }

    def _outer_shapes(self) -> dict[str, tuple[int, ...]]:
        hidden, latent, patch = self.hidden, self.latent, self.patch
        pixels = patch * patch * 3
        return {
            **_linear("proj_in", hidden, latent),
            **_linear("patch_cond_dit", hidden, 3, patch, patch),
            **_norm("norm_cond_dit", hidden),
            **_linear("patch_cond_dec", hidden, 3, patch, patch),
            **_norm("norm_cond_dec", hidden),
            **_linear("proj_token", hidden, latent),
            **_norm("norm_out", hidden),
            **_linear("proj_out", 2 * latent, hidden),
            **_linear("adaLN_modulation.1", NUM_MODULATIONS * hidden, hidden),
            **_linear("difference_embedder", hidden, 1),
            **_linear("denoise_timestep_embedder.mlp.0", hidden, TIMESTEP_FEATURES),
            **_linear("denoise_timestep_embedder.mlp.2", hidden, hidden),
            **_norm("unpatchify.0", hidden),
            **_linear("unpatchify.1", pixels, hidden),
            **_linear("unpatchify.3", pixels, pixels),
        }


PRESETS: Mapping[str, Architecture] = {
    "full": Architecture(),
    "small": Architecture(
        hidden=256, num_heads=4, dit_depth=4, decoder_depth=2, mlp_hidden=1024
    ),  # a CPU computes it
    "tiny": Architecture(
        hidden=32, num_heads=2, dit_depth=2, decoder_depth=2, mlp_hidden=64
    ),  # for tests
}


def infer(shapes: Shapes, num_heads: int | None, constants: Constants) -> Architecture:
    """Return the architecture whose state dict has exactly `shapes`.

    Args:
        shapes: every tensor of a state dict.
        num_heads: as the file says it; no shape tells it. None: 64 channels a head, as published.
        constants: as the file says them.

    Raises:
        UserError: a name is missing or unknown, or a shape does not fit the others.
    """
    hidden, latent = _dims(shapes, "proj_in.weight", 2)
    architecture = Architecture(
        hidden=hidden,
        num_heads=max(1, hidden // 64) if num_heads is None else num_heads,
        dit_depth=_depth(shapes, "dit_blocks"),
        decoder_depth=_depth(shapes, "decoder_blocks"),
        mlp_hidden=_dims(shapes, "dit_blocks.0.mlp.fc1.weight", 2)[0],
        patch=_dims(shapes, "patch_cond_dit.weight", 4)[-1],
        latent=latent,
        constants=constants,
    )
    _check_shapes(shapes, architecture.shapes())
    _check_divisions(architecture)
    return architecture


def _linear(name: str, *shape: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": shape, f"{name}.bias": shape[:1]}


def _norm(name: str, size: int) -> dict[str, tuple[int, ...]]:
    return _linear(name, size)


def _dims(shapes: Shapes, name: str, rank: int) -> tuple[int, ...]:
    if name not in shapes:
        raise UserError(f"not an EDEN model: tensor {name} is missing")
    if len(shapes[name]) != rank or 0 in shapes[name]:
        raise UserError(f"not an EDEN model: tensor {name} has shape {list(shapes[name])}")
    return shapes[name]


def _depth(shapes: Shapes, stack: str) -> int:
    # Counted, not taken from the largest index: a file could name block 10 ** 12.
    indices = {m[1] for name in shapes if (m := re.match(rf"{stack}\.([0-9]+)\.", name))}
    return len(indices)


def _check_shapes(shapes: Shapes, expected: Shapes) -> None:
    for name, shape in expected.items():
        if name not in shapes:
            raise UserError(f"not an EDEN model: tensor {name} is missing")
        if shapes[name] != shape:
            raise UserError(
                f"not an EDEN model: tensor {name} has shape {list(shapes[name])},"
                f" the others ask for {list(shape)}"
            )
    # A tensor left aside would mean that the model computes something else, for instance a bias.
    if unknown := sorted(shapes.keys() - expected.keys()):
        raise UserError(f"not an EDEN model: unknown tensor {unknown[0]} ({len(unknown)} such)")


def _check_divisions(architecture: Architecture) -> None:
    hidden, num_heads = architecture.hidden, architecture.num_heads
    if num_heads < 1 or hidden % num_heads:
        raise UserError(f"num_heads = {num_heads} does not divide the hidden size {hidden}")
    if hidden % 4:
        raise UserError(f"hidden size {hidden} is no multiple of 4, which positions need")
