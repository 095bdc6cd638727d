"""From noise to latents: Euler steps with two passes each, as diffusers' pipeline does them.

It is a loop of our own over diffusers' models, for what the pipeline's own does not give: on a GPU
it never waits for it. Every number is the pipeline's, to the last bit, and a test holds that.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from stages.editing.sizes import Size

if TYPE_CHECKING:
    from diffusers import FlowMatchEulerDiscreteScheduler, QwenImageTransformer2DModel

    from stages.editing.models import EditModels

LATENT_SIDE = 8  # pixels of a latent


@dataclass(frozen=True, slots=True, kw_only=True)
class Conditions:
    """What an edit is made from; all on the stage's device, [1, tokens, channels]."""

    source: torch.Tensor  # packed latents
    prompt: torch.Tensor
    negative: torch.Tensor | None  # None: no guidance, one pass a step
    shapes: list[list[tuple[int, int, int]]]  # of the edit and of the source, in tokens


def denoise(
    models: EditModels,
    latents: torch.Tensor,
    conditions: Conditions,
    *,
    steps: int,
    true_cfg_scale: float,
    progress: Callable[[float], None],
) -> torch.Tensor:
    """Return the denoised latents, packed as `latents` [1, tokens, channels], which are noise.

    `progress` is told the fraction of steps that are queued, which costs no wait. A GPU's queue
    has room for about a thousand kernels and a pass has more, so it is never further ahead of the
    GPU than about a pass.
    """
    scheduler = models.scheduler
    times = _set_times(scheduler, steps, latents)
    for number in range(steps):
        time = times[number].expand(1).to(latents.dtype) / 1000
        rows = torch.cat([latents, conditions.source], dim=1)
        change = _predict(models.transformer, rows, time, conditions.prompt, conditions.shapes)
        change = change[:, : latents.shape[1]]
        if conditions.negative is not None:
            away = _predict(models.transformer, rows, time, conditions.negative, conditions.shapes)
            change = _guided(change, away[:, : latents.shape[1]], true_cfg_scale)
        latents = scheduler.step(change, times[number], latents, return_dict=False)[0]
        progress((number + 1) / steps)
    return latents


def _predict(
    transformer: QwenImageTransformer2DModel,
    rows: torch.Tensor,
    time: torch.Tensor,
    text: torch.Tensor,
    shapes: list[list[tuple[int, int, int]]],
) -> torch.Tensor:
    predicted: torch.Tensor = transformer(
        hidden_states=rows,
        timestep=time,
        guidance=None,
        encoder_hidden_states_mask=None,
        encoder_hidden_states=text,
        img_shapes=shapes,
        attention_kwargs={},
        return_dict=False,
    )[0]
    return predicted


def _guided(toward: torch.Tensor, away: torch.Tensor, scale: float) -> torch.Tensor:
    """Return what leads from `away` past `toward`, each token as long as it was in `toward`."""
    mixed = away + scale * (toward - away)
    length = torch.norm(toward, dim=-1, keepdim=True)
    guided: torch.Tensor = mixed * (length / torch.norm(mixed, dim=-1, keepdim=True))
    return guided


def _set_times(
    scheduler: FlowMatchEulerDiscreteScheduler, steps: int, latents: torch.Tensor
) -> torch.Tensor:
    """Set the noise schedule for pictures of this size, and return its times on their device.

    diffusers would make it there itself, and wait for the GPU.
    """
    known = scheduler.config
    first, last = known.get("base_image_seq_len", 256), known.get("max_image_seq_len", 4096)
    low, high = known.get("base_shift", 0.5), known.get("max_shift", 1.15)
    slope = (high - low) / (last - first)
    shift = latents.shape[1] * slope + (low - slope * first)
    scheduler.set_timesteps(sigmas=np.linspace(1.0, 1 / steps, steps), mu=shift, device="cpu")
    scheduler.set_begin_index(0)
    scheduler.sigmas = queued(scheduler.sigmas, latents.device)
    return queued(scheduler.timesteps, latents.device)


def queued(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Return `tensor` on `device`; a copy to a GPU is only queued."""
    if device.type != "cuda" or tensor.device.type == "cuda":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)


def pack(latents: torch.Tensor) -> torch.Tensor:
    """Return latents [1, C, H, W] as tokens [1, H / 2 * W / 2, C * 4] of 2 x 2 each."""
    _, channels, height, width = latents.shape
    blocks = latents.view(1, channels, height // 2, 2, width // 2, 2).permute(0, 2, 4, 1, 3, 5)
    return blocks.reshape(1, height // 2 * (width // 2), channels * 4)


def unpack(tokens: torch.Tensor, size: Size) -> torch.Tensor:
    """Return tokens of a picture of `size` as latents [1, C, 1, H, W]."""
    height, width = size[0] // LATENT_SIDE, size[1] // LATENT_SIDE
    channels = tokens.shape[2] // 4
    blocks = tokens.view(1, height // 2, width // 2, channels, 2, 2).permute(0, 3, 1, 4, 2, 5)
    return blocks.reshape(1, channels, 1, height, width)


def noise(seed: int, size: Size, channels: int, dtype: torch.dtype) -> torch.Tensor:
    """Return what an edit of `size` starts from, [1, C, H, W]: made on the CPU, wherever it runs.

    So it depends on the sample's seed alone, and is what diffusers makes of the same generator.
    """
    generator = torch.Generator().manual_seed(seed)
    height, width = size[0] // LATENT_SIDE, size[1] // LATENT_SIDE
    return torch.randn((1, 1, channels, height, width), generator=generator, dtype=dtype)[:, 0]
