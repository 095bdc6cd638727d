"""A Qwen3-VL with random weights, built on its device, that says a score all the same.

Random weights say nothing that parses, and the time a judge takes depends on how much it says. So
a few dimensions of the hidden state are kept for a chain of tokens: the embedding of each token of
the chain marks its own dimension, no layer writes there, and the output turns the mark into the
next token. What it says is "Score: D/10"; which digit D, the other weights choose, from the images
and the words. Good for measuring and testing; the digit means nothing.
"""

from __future__ import annotations

import torch
from tokenizers import Regex, Tokenizer, decoders, pre_tokenizers
from tokenizers.models import WordLevel
from transformers import (
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
    Qwen2Tokenizer,
    Qwen2VLImageProcessor,
    Qwen3VLConfig,
    Qwen3VLForConditionalGeneration,
    Qwen3VLMoeConfig,
    Qwen3VLMoeForConditionalGeneration,
    Qwen3VLProcessor,
    Qwen3VLVideoProcessor,
)

from stages.judging.presets import PRESETS, Preset

SPECIAL = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|vision_pad|>",
    "<|image_pad|>",
    "<|video_pad|>",
)
# The format in which Qwen's chat models are talked to, for the roles and parts that occur here.
CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n"
    "{% for part in message.content %}{% if part.type == 'image' %}"
    "<|vision_start|><|image_pad|><|vision_end|>{% else %}{{ part.text }}{% endif %}{% endfor %}"
    "<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
# What may follow what; the first is the last token of any prompt.
SAYING = ("\n", "S", "c", "o", "r", "e", ":", " ", "23456789", "/", "1", "0")

_MARK = 1.0  # of a token of the chain in its embedding, whose other numbers spread by 1
_SHARPNESS = 4.0  # of attention, else all of a long prompt has its mean and all digits are one
_PULL = 400.0  # from a mark to the logit of what follows
_BIAS_FAN_IN = 2500


def make_processor(tokenizer: PreTrainedTokenizerBase) -> Qwen3VLProcessor:
    """Return a processor with Qwen3-VL's own image settings around `tokenizer`."""
    images = Qwen2VLImageProcessor(
        patch_size=16,
        temporal_patch_size=2,
        merge_size=2,
        size={"shortest_edge": 65536, "longest_edge": 16777216},
        image_mean=[0.5, 0.5, 0.5],
        image_std=[0.5, 0.5, 0.5],
    )
    return Qwen3VLProcessor(images, tokenizer, Qwen3VLVideoProcessor(), chat_template=CHAT_TEMPLATE)


def byte_tokenizer() -> PreTrainedTokenizerBase:
    """Return a tokenizer of 256 bytes and Qwen's special tokens, without merges."""
    vocabulary = _vocabulary()
    plain: PreTrainedTokenizerBase = Qwen2Tokenizer(
        vocab=vocabulary, merges=[], additional_special_tokens=list(SPECIAL), padding_side="left"
    )
    return plain


def chunk_tokenizer() -> PreTrainedTokenizerBase:
    """Return a tokenizer that makes one token of four signs, about as many as Qwen's own makes."""
    tokenizer = Tokenizer(WordLevel(_vocabulary(), unk_token=SPECIAL[0]))
    chunks = pre_tokenizers.Split(Regex(r"\n|[^\n]{1,4}"), behavior="isolated")
    as_bytes = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([chunks, as_bytes])
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        additional_special_tokens=list(SPECIAL),
        eos_token="<|im_end|>",
        pad_token=SPECIAL[0],
        unk_token=SPECIAL[0],
        padding_side="left",
    )


def _vocabulary() -> dict[str, int]:
    signs = sorted(pre_tokenizers.ByteLevel.alphabet())
    return {token: number for number, token in enumerate((*signs, *SPECIAL))}


def make_model(preset: str, seed: int, *, device: str, dtype: torch.dtype) -> PreTrainedModel:
    """Return the model with weights of its own for each seed and kind of device."""
    config = config_of(PRESETS[preset])
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)  # so that it is never there in float32
    try:
        with torch.device(device):
            made = model_of(config)
    finally:
        torch.set_default_dtype(before)
    with torch.inference_mode():
        _fill(made, torch.Generator(device).manual_seed(seed))
        _teach(made)
    return made.eval()


def model_of(config: Qwen3VLConfig | Qwen3VLMoeConfig) -> PreTrainedModel:
    """Return a model of that configuration, on torch's default device and of its default dtype."""
    if isinstance(config, Qwen3VLMoeConfig):
        return Qwen3VLMoeForConditionalGeneration(config)
    return Qwen3VLForConditionalGeneration(config)


def config_of(preset: Preset) -> Qwen3VLConfig | Qwen3VLMoeConfig:
    """Return the configuration of a preset, with the ids of its own tokens."""
    vocabulary, numbers = _vocabulary(), preset.config()
    ids = {
        f"{name}_token_id": vocabulary[token]
        for name, token in (
            ("image", "<|image_pad|>"),
            ("video", "<|video_pad|>"),
            ("vision_start", "<|vision_start|>"),
            ("vision_end", "<|vision_end|>"),
        )
    }
    kind = Qwen3VLMoeConfig if preset.is_moe else Qwen3VLConfig
    return kind(**numbers, **ids)


def _fill(model: PreTrainedModel, generator: torch.Generator) -> None:
    for name, values in model.named_parameters():
        kind = name.split(".")[-2]
        if "norm" in kind:
            gain = _SHARPNESS if kind in ("q_norm", "k_norm") else 1.0
            values.fill_(gain if name.endswith("weight") else 0.0)
        else:
            # So that what goes in is about as large as what comes out, and images matter.
            is_table = "embed" in kind
            fan_in = 1 if is_table else values[0].numel() if values.ndim > 1 else _BIAS_FAN_IN
            values.normal_(std=fan_in**-0.5, generator=generator)


def _teach(model: PreTrainedModel) -> None:
    vocabulary, states = _vocabulary(), len(SAYING)
    language = model.model.language_model
    language.embed_tokens.weight[:, :states] = 0
    model.lm_head.weight[:, :states] = 0
    for layer in language.layers:
        layer.self_attn.o_proj.weight[:states] = 0
        down = getattr(layer.mlp, "experts", layer.mlp).down_proj
        if isinstance(down, torch.nn.Linear):
            down.weight[:states] = 0
        else:
            down[:, :states] = 0  # [experts, hidden, intermediate]
    for state, signs in enumerate(SAYING):
        following = [*SAYING, None][state + 1]
        after = ["<|im_end|>"] if following is None else [_token(sign) for sign in following]
        for sign in signs:
            language.embed_tokens.weight[vocabulary[_token(sign)], state] = _MARK
        for token in after:
            model.lm_head.weight[vocabulary[token], state] = _PULL


def _token(sign: str) -> str:
    """Return a sign as a byte-level vocabulary spells it."""
    (spelled, _), *_ = pre_tokenizers.ByteLevel(
        add_prefix_space=False, use_regex=False
    ).pre_tokenize_str(sign)
    return spelled
