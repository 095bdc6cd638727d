"""Builds the parts of a Qwen-Image-Edit pipeline that a stage needs, and no other; knows diffusers.

diffusers and transformers take seconds to import, so they are imported where they are used: a
process that only asks what a stage writes never pays for them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from safetensors import SafetensorError

from stages.base import UserError
from stages.editing.byte_tokens import SPECIAL_IDS, byte_processor
from stages.editing.checkpoint import Checkpoint
from stages.editing.seeds import key_seed
from stages.vision import make_torchvision_importable

if TYPE_CHECKING:
    from diffusers import (
        AutoencoderKLQwenImage,
        DiffusionPipeline,
        FlowMatchEulerDiscreteScheduler,
        QwenImageEditPipeline,
        QwenImageTransformer2DModel,
    )
    from transformers import Qwen2_5_VLForConditionalGeneration

ModelT = TypeVar("ModelT", bound=torch.nn.Module)

_CONTRAST = 16.0
# What the libraries raise for a component whose files are of something else.
_UNREADABLE = (
    AttributeError,
    KeyError,
    OSError,
    RuntimeError,
    SafetensorError,
    TypeError,
    ValueError,
)

TEXT_PARTS = ("text_encoder",)
EDIT_PARTS = ("vae", "transformer")


@dataclass(frozen=True, slots=True)
class EditModels:
    """What denoises, and what turns pictures into latents and back."""

    transformer: QwenImageTransformer2DModel
    vae: AutoencoderKLQwenImage
    scheduler: FlowMatchEulerDiscreteScheduler


def load_text_half(
    checkpoint: Checkpoint, device: torch.device, dtype: torch.dtype
) -> QwenImageEditPipeline:
    """Return a pipeline of diffusers that can encode prompts, and nothing else.

    Raises:
        UserError: a component is missing, or of another class.
    """
    import_libraries()
    import diffusers
    import transformers

    if checkpoint.preset:
        encoder = _random_text_encoder(checkpoint, device, dtype)
        processor = byte_processor()
    else:
        checkpoint.num_parameters(*TEXT_PARTS)  # whether they are there and whole
        with _explained(checkpoint, "text_encoder"):
            encoder = transformers.Qwen2_5_VLForConditionalGeneration.from_pretrained(
                checkpoint.folder("text_encoder"), **_how(device, dtype), dtype=dtype
            )
        with _explained(checkpoint, "processor"):
            processor = transformers.Qwen2VLProcessor.from_pretrained(
                checkpoint.folder("processor"), local_files_only=True
            )
    pipeline = getattr(diffusers, checkpoint.pipeline)
    return pipeline(
        scheduler=None,
        vae=None,
        text_encoder=encoder.eval().requires_grad_(False),
        tokenizer=processor.tokenizer,
        processor=processor,
        transformer=None,
    )


def load_edit_half(checkpoint: Checkpoint, device: torch.device, dtype: torch.dtype) -> EditModels:
    """Return the models that edit, on `device`.

    Raises:
        UserError: a component is missing, or of another class; or it is distilled for guidance,
            or sampled with fresh noise at each step, which nothing published is.
    """
    import_libraries()
    import diffusers

    if checkpoint.preset:
        models = _random_edit_half(checkpoint, device, dtype)
    else:
        checkpoint.num_parameters(*EDIT_PARTS)
        read: dict[str, Any] = {}
        for name, known in {
            "transformer": diffusers.QwenImageTransformer2DModel,
            "vae": diffusers.AutoencoderKLQwenImage,
        }.items():
            with _explained(checkpoint, name):
                read[name] = known.from_pretrained(
                    checkpoint.folder(name), **_how(device, dtype), dtype=dtype
                )
        with _explained(checkpoint, "scheduler"):
            read["scheduler"] = diffusers.FlowMatchEulerDiscreteScheduler.from_pretrained(
                checkpoint.folder("scheduler"), local_files_only=True
            )
        models = EditModels(**read)
    if models.transformer.config.guidance_embeds or models.scheduler.config.stochastic_sampling:
        raise UserError(f"weights {checkpoint.weights}: use stages.editing:EditWhole for this one")
    for model in (models.transformer, models.vae):
        model.eval().requires_grad_(False)
    return models


def load_whole(
    checkpoint: Checkpoint, device: torch.device, dtype: torch.dtype
) -> DiffusionPipeline:
    """Return the whole pipeline, of any class of diffusers.

    Raises:
        UserError: a file of it is missing, pickled or cut short.
    """
    import_libraries()
    import diffusers

    if checkpoint.preset:
        pipeline = load_text_half(checkpoint, device, dtype)
        halves = load_edit_half(checkpoint, device, dtype)
        return type(pipeline)(
            **pipeline.components
            | {"transformer": halves.transformer, "vae": halves.vae, "scheduler": halves.scheduler}
        )
    checkpoint.num_parameters(*checkpoint.components_with_weights())
    known: Any = getattr(diffusers, checkpoint.pipeline)
    with _explained(checkpoint, "the pipeline"):
        pipeline = known.from_pretrained(
            checkpoint.weights, dtype=dtype, use_safetensors=True, local_files_only=True
        )
    return pipeline.to(device)


def import_libraries() -> None:
    """Import diffusers and transformers, quietly: they write progress bars to stderr."""
    make_torchvision_importable()
    import diffusers
    import tqdm
    import transformers

    tqdm.tqdm.monitor_interval = 0  # else a thread for the bars, though none is shown
    for library in (diffusers, transformers):
        library.utils.logging.disable_progress_bar()


def _how(device: torch.device, dtype: torch.dtype) -> dict[str, Any]:
    # Straight onto the device: the host never holds more than a shard.
    return {"device_map": {"": str(device)}, "use_safetensors": True, "local_files_only": True}


@contextmanager
def _explained(checkpoint: Checkpoint, component: str) -> Iterator[None]:
    """Turn what the libraries raise about a file into one line that names the component."""
    try:
        yield
    except torch.OutOfMemoryError:
        raise
    except _UNREADABLE as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UserError(
            f"weights {checkpoint.weights}: {component} cannot be read: {reason}"
        ) from error


def _random_edit_half(
    checkpoint: Checkpoint, device: torch.device, dtype: torch.dtype
) -> EditModels:
    import diffusers

    assert checkpoint.preset is not None
    preset = checkpoint.preset
    return EditModels(
        transformer=_seeded(
            lambda: diffusers.QwenImageTransformer2DModel(**preset.transformer),
            (checkpoint.seed, "transformer"),
            device,
            dtype,
        ),
        vae=_with_contrast(
            _seeded(
                lambda: diffusers.AutoencoderKLQwenImage(**preset.vae),
                (checkpoint.seed, "vae"),
                device,
                dtype,
            )
        ),
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(**preset.scheduler),
    )


def _with_contrast(vae: AutoencoderKLQwenImage) -> AutoencoderKLQwenImage:
    """Raise what comes out of a random VAE, else it is one grey, and so is every edit."""
    with torch.no_grad():
        vae.decoder.conv_out.weight.mul_(_CONTRAST)
    return vae


def _random_text_encoder(
    checkpoint: Checkpoint, device: torch.device, dtype: torch.dtype
) -> Qwen2_5_VLForConditionalGeneration:
    import transformers

    assert checkpoint.preset is not None
    config = transformers.Qwen2_5_VLConfig(
        text_config=dict(checkpoint.preset.text) | {"bos_token_id": None, "eos_token_id": None},
        vision_config=dict(checkpoint.preset.vision),
        **SPECIAL_IDS,
    )
    known = transformers.Qwen2_5_VLForConditionalGeneration
    return _seeded(
        lambda: known._from_config(config, dtype=dtype),
        (checkpoint.seed, "text_encoder"),
        device,
        dtype,
    )


def _seeded(
    build: Callable[[], ModelT],
    key: tuple[object, ...],
    device: torch.device,
    dtype: torch.dtype,
) -> ModelT:
    """Return what `build` makes, its numbers drawn on `device` itself: 20 B take a second there."""
    before = torch.get_default_dtype()
    with torch.random.fork_rng([device] if device.type == "cuda" else []), device:
        torch.manual_seed(key_seed("editor weights", *key))
        torch.set_default_dtype(dtype)
        try:
            return build().to(device)
        finally:
            torch.set_default_dtype(before)
