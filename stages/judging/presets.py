"""The sizes of the random judges, as numbers: no torch, no transformers, so that a plan reads them.

Sources: `config.json` of Qwen/Qwen3-VL-8B-Instruct and Qwen/Qwen3-VL-30B-A3B-Instruct. `tiny` and
`tiny-moe` are ours, for tests on a CPU. A test holds the number of parameters of the large ones.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from stages.base import UserError

_VISION: dict[str, int | list[int]] = {
    "depth": 27,
    "hidden_size": 1152,
    "intermediate_size": 4304,
    "num_heads": 16,
    "patch_size": 16,
    "temporal_patch_size": 2,
    "spatial_merge_size": 2,
    "num_position_embeddings": 2304,
    "deepstack_visual_indexes": [8, 16, 24],
}
_TINY_VISION: dict[str, int | list[int]] = {
    **_VISION,
    "depth": 2,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_heads": 2,
    "out_hidden_size": 64,
    "num_position_embeddings": 64,
    "deepstack_visual_indexes": [0, 1],
}
_TINY_TEXT = {
    "vocab_size": 264,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "max_position_embeddings": 32768,
}
_TEXT = {"vocab_size": 151936, "head_dim": 128, "max_position_embeddings": 262144}


@dataclass(frozen=True, slots=True)
class Preset:
    """What a Qwen3-VL is made of, by the names of its `config.json`."""

    is_moe: bool
    text: Mapping[str, int]
    vision: Mapping[str, int | list[int]]
    mrope_section: tuple[int, int, int]
    parameters: int  # all of them

    def config(self) -> dict[str, object]:
        """Return it as a `config.json` has it, but for the ids of tokens."""
        kind = "qwen3_vl_moe" if self.is_moe else "qwen3_vl"
        rope = {
            "rope_type": "default",
            "rope_theta": 5e6,
            "mrope_section": list(self.mrope_section),
            "mrope_interleaved": True,
        }
        text = {"model_type": f"{kind}_text", "tie_word_embeddings": False, "rope_parameters": rope}
        return {
            "model_type": kind,
            "tie_word_embeddings": False,
            "text_config": {**text, **self.text},
            "vision_config": {"model_type": f"{kind}_vision", **self.vision},
        }


PRESETS = {
    "8b": Preset(
        is_moe=False,
        text={
            **_TEXT,
            "hidden_size": 4096,
            "intermediate_size": 12288,
            "num_hidden_layers": 36,
            "num_attention_heads": 32,
            "num_key_value_heads": 8,
        },
        vision={**_VISION, "out_hidden_size": 4096},
        mrope_section=(24, 20, 20),
        parameters=8_767_123_696,
    ),
    "30b-a3b": Preset(
        is_moe=True,
        text={
            **_TEXT,
            "hidden_size": 2048,
            "intermediate_size": 6144,
            "num_hidden_layers": 48,
            "num_attention_heads": 32,
            "num_key_value_heads": 4,
            "num_experts": 128,
            "num_experts_per_tok": 8,
            "moe_intermediate_size": 768,
        },
        vision={**_VISION, "out_hidden_size": 2048},
        mrope_section=(24, 20, 20),
        parameters=31_070_754_032,
    ),
    "tiny": Preset(
        is_moe=False,
        text=_TINY_TEXT,
        vision=_TINY_VISION,
        mrope_section=(4, 2, 2),
        parameters=251_104,
    ),
    "tiny-moe": Preset(
        is_moe=True,
        text={
            **_TINY_TEXT,
            "num_experts": 4,
            "num_experts_per_tok": 2,
            "moe_intermediate_size": 32,
        },
        vision=_TINY_VISION,
        mrope_section=(4, 2, 2),
        parameters=251_616,
    ),
}


def parse_random(model: str) -> tuple[int, str]:
    """Return seed and preset of `random:SEED[:PRESET]`; the preset is 8b unless said.

    Raises:
        UserError: it is written in another way.
    """
    match = re.fullmatch(r"random:([0-9]{1,9})(?::([a-z0-9-]+))?", model)
    if match is None or (match[2] or "8b") not in PRESETS:
        raise UserError(
            f"weights {model}: write random:SEED or random:SEED:PRESET,"
            f" PRESET one of {', '.join(PRESETS)}"
        )
    return int(match[1]), match[2] or "8b"
