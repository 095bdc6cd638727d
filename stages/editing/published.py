"""The published configuration numbers of Qwen-Image-Edit, and of small models of the same shape.

For random weights: they need the numbers, and no network. Sources: the `config.json` of each
component in the model repositories Qwen/Qwen-Image-Edit, Qwen/Qwen-Image-Edit-2509 (Plus) and
Qwen/Qwen-Image-Edit-2511 (Plus, `zero_cond_t`); the text encoder is Qwen/Qwen2.5-VL-7B-Instruct.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

Numbers = Mapping[str, Any]

PLAIN, PLUS = "QwenImageEditPipeline", "QwenImageEditPlusPipeline"

_PARAMETERS = {"transformer": 20430401088, "vae": 126892531, "text_encoder": 8292166656}
_TRANSFORMER = {
    "patch_size": 2,
    "in_channels": 64,
    "out_channels": 16,
    "num_layers": 60,
    "attention_head_dim": 128,
    "num_attention_heads": 24,
    "joint_attention_dim": 3584,
    "guidance_embeds": False,
    "axes_dims_rope": [16, 56, 56],
}
# Latent means and standard deviations are diffusers' defaults.
_VAE = {
    "base_dim": 96,
    "z_dim": 16,
    "dim_mult": [1, 2, 4, 4],
    "num_res_blocks": 2,
    "temperal_downsample": [False, True, True],
}
_SCHEDULER = {
    "base_image_seq_len": 256,
    "base_shift": 0.5,
    "max_image_seq_len": 8192,
    "max_shift": 0.9,
    "num_train_timesteps": 1000,
    "shift": 1.0,
    "shift_terminal": 0.02,
    "time_shift_type": "exponential",
    "use_dynamic_shifting": True,
}
_TEXT = {
    "hidden_size": 3584,
    "intermediate_size": 18944,
    "num_hidden_layers": 28,
    "num_attention_heads": 28,
    "num_key_value_heads": 4,
    "vocab_size": 152064,
    "max_position_embeddings": 128000,
    "rms_norm_eps": 1e-6,
    "tie_word_embeddings": False,
    "rope_parameters": {
        "rope_type": "default",
        "rope_theta": 1000000.0,
        "mrope_section": [16, 24, 24],
    },
}
_VISION = {
    "depth": 32,
    "hidden_size": 1280,
    "intermediate_size": 3420,
    "num_heads": 16,
    "in_channels": 3,
    "out_hidden_size": 3584,
    "patch_size": 14,
    "spatial_merge_size": 2,
    "temporal_patch_size": 2,
    "window_size": 112,
    "fullatt_block_indexes": [7, 15, 23, 31],
    "tokens_per_second": 2,
}

_TINY_PARAMETERS = {"transformer": 26864, "vae": 6233, "text_encoder": 42704}
_TINY_TRANSFORMER = _TRANSFORMER | {
    "num_layers": 2,
    "attention_head_dim": 16,
    "num_attention_heads": 1,
    "joint_attention_dim": 16,
    "axes_dims_rope": [8, 4, 4],
}
# Pictures are a megapixel whatever the model: this VAE takes two seconds of one slow core, one of
# twice the width and with residual blocks ten.
_TINY_VAE = _VAE | {"base_dim": 2, "dim_mult": [1, 1, 1, 1], "num_res_blocks": 0}
_TINY_TEXT = _TEXT | {
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "vocab_size": 264,
    "max_position_embeddings": 8192,
    "rope_parameters": {
        "rope_type": "default",
        "rope_theta": 1000000.0,
        "mrope_section": [1, 1, 2],
    },
}
_TINY_VISION = _VISION | {
    "depth": 2,
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_heads": 2,
    "out_hidden_size": 16,
    "fullatt_block_indexes": [1],
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Preset:
    """A model of random weights: its pipeline's class, and the numbers of each component."""

    pipeline: str = PLAIN
    transformer: Numbers = field(default_factory=lambda: _TRANSFORMER)
    vae: Numbers = field(default_factory=lambda: _VAE)
    scheduler: Numbers = field(default_factory=lambda: _SCHEDULER)
    text: Numbers = field(default_factory=lambda: _TEXT)
    vision: Numbers = field(default_factory=lambda: _VISION)
    parameters: Mapping[str, int] = field(default_factory=lambda: _PARAMETERS)


_TINY: dict[str, Any] = {
    "transformer": _TINY_TRANSFORMER,
    "vae": _TINY_VAE,
    "text": _TINY_TEXT,
    "vision": _TINY_VISION,
    "parameters": _TINY_PARAMETERS,
}
PRESETS: Mapping[str, Preset] = MappingProxyType(
    {
        "full": Preset(),
        "plus": Preset(pipeline=PLUS),
        "plus2511": Preset(pipeline=PLUS, transformer=_TRANSFORMER | {"zero_cond_t": True}),
        "tiny": Preset(**_TINY),
        "tinyplus": Preset(pipeline=PLUS, **_TINY),
        "tinyplus2511": Preset(
            **_TINY | {"pipeline": PLUS, "transformer": _TINY_TRANSFORMER | {"zero_cond_t": True}}
        ),
    }
)
