"""Which networks a stage runs: plain torch, or fused kernels where there are some.

Plain torch is the definition, for every device and dtype. The fused ones are for GPUs.
"""

from __future__ import annotations

import logging
import subprocess
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Literal, get_args

import torch

from stages.base import UserError
from stages.eden import yuv
from stages.eden.architecture import Architecture
from stages.eden.decoder import Decoder
from stages.eden.denoiser import Denoiser
from stages.eden.encoder import Encoder
from stages.window import VideoFacts

logger = logging.getLogger(__name__)

Kernels = Literal["auto", "torch", "triton"]
KERNELS: tuple[Kernels, ...] = get_args(Kernels)

# What one block of a kernel can hold. No published or trained model comes near.
_MAX_HIDDEN = 8192
_MAX_HEAD = 1024
_MAX_PATCH = 64
_MAX_LATENT = 1024
_FUSED_DTYPES = (torch.float32, torch.bfloat16, torch.float16)


@dataclass(frozen=True, slots=True)
class Networks:
    """The three networks, and the way from planar YUV to them and back."""

    name: Kernels
    encoder: type[Encoder]
    denoiser: type[Denoiser]
    decoder: type[Decoder]
    planes_to_rgb: Callable[[torch.Tensor, VideoFacts], torch.Tensor]
    rgb_to_planes: Callable[..., None]
    # While it lasts, networks prepare their kernels instead of running them.
    compiling: Callable[[torch.device], AbstractContextManager[object]] = nullcontext


PLAIN = Networks("torch", Encoder, Denoiser, Decoder, yuv.planes_to_rgb, yuv.rgb_to_planes)


def choose_networks(
    kernels: Kernels, architecture: Architecture, device: torch.device, dtype: torch.dtype
) -> Networks:
    """Return the networks that `kernels` asks for.

    Args:
        kernels: "torch": plain. "triton": fused. "auto": fused on a GPU if they can run there.
        architecture: of the weights.
        device: of the stage.
        dtype: of weights and tokens.

    Raises:
        UserError: `kernels` is "triton", and they cannot run.
    """
    if kernels == "torch" or (kernels == "auto" and device.type != "cuda"):
        return PLAIN
    reason = _unsuitable(architecture, device, dtype)
    if not reason:
        try:
            return _fused(device, dtype)
        except (ImportError, OSError, RuntimeError, subprocess.SubprocessError) as error:
            reason = f"Triton cannot compile for {device}: {type(error).__name__}: {error}"
    if kernels == "triton":
        raise UserError(f"kernels: triton cannot be had: {reason}; write auto or torch")
    logger.warning("plain torch instead of fused kernels, slower: %s", reason)
    return PLAIN


def _unsuitable(architecture: Architecture, device: torch.device, dtype: torch.dtype) -> str:
    """Return why kernels cannot compute this, or nothing."""
    if dtype not in _FUSED_DTYPES:
        return f"no kernels compute in {dtype}"
    if device.type != "cuda" and not _is_interpreted():
        return f"kernels need a GPU, and the stage is on {device}"
    head = architecture.hidden // architecture.num_heads
    sizes = {
        "hidden size": (architecture.hidden, _MAX_HIDDEN),
        "head": (head, _MAX_HEAD),
        "patch": (architecture.patch, _MAX_PATCH),
        "latent": (architecture.latent, _MAX_LATENT),
    }
    for name, (size, most) in sizes.items():
        if size > most:
            return f"kernels hold a {name} of {most} at most, and this model's is {size}"
    return ""


def _is_interpreted() -> bool:
    try:
        from stages.eden.fused.jit import is_interpreted
    except ImportError:
        return False
    return is_interpreted()


def _fused(device: torch.device, dtype: torch.dtype) -> Networks:
    """Return the fused networks, having run a kernel: that shows whether a compiler is there."""
    from stages.eden.fused import decoder, denoiser, encoder, jit, mlp, planes

    mlp.gelu_(torch.zeros(mlp.NUMBERS, dtype=dtype, device=device))  # one that networks use
    return Networks(
        "triton",
        encoder.Encoder,
        denoiser.Denoiser,
        decoder.Decoder,
        planes.planes_to_rgb,
        planes.rgb_to_planes,
        jit.compiling,
    )
