"""The stage `prompts`: a source and its instruction in, the text encoder's embeddings out."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from stages.base import Item, TensorSpec
from stages.benchmark.facts import SampleFacts, SampleMeta
from stages.editing.models import TEXT_PARTS, load_text_half
from stages.editing.pixels import as_image
from stages.editing.sizes import Size, max_prompt_tokens, prompt_size
from stages.editing.stage import EditingStage, Tensors, black_source, meta_of, picture_of

if TYPE_CHECKING:
    from diffusers import QwenImageEditPipeline

_WORK_PER_TOKEN = 100  # bytes per byte of a prompt: all layers' states, and one layer's products


class EncodePrompts(EditingStage):
    """Qwen2.5-VL as a stage: what the editor is told of the picture and of the instruction.

    Reads `source`. Writes `prompt` and `negative` [tokens, channels], a sample's own tokens first
    and zeros behind them; `meta.prompt_tokens` and `meta.negative_tokens` say how many. One sample
    at a time: a batch would pad, and change the last bits of the shorter prompts.

    diffusers prepares the picture on the CPU. So, where the source lies on a GPU, this waits for
    what was queued there before: in a worker of its own for nobody else's work.

    Args:
        weights: folder of a pipeline, or `random:SEED[:PRESET]`.
        dtype: of weights and embeddings: float32, bfloat16 or float16.
        negative_prompt: what to steer away from; " " is what the model's authors take.
        true_cfg_scale: how far; up to 1 nothing is steered, and `negative` stays empty.

    Raises:
        UserError: `dtype` is none of these.
    """

    reads = ("source",)
    writes = ("prompt", "negative")
    parts = TEXT_PARTS

    def __init__(
        self,
        *,
        weights: str,
        dtype: str = "bfloat16",
        negative_prompt: str = " ",
        true_cfg_scale: float = 4.0,
    ) -> None:
        super().__init__(weights=weights, dtype=dtype)
        self._negative_prompt = negative_prompt if true_cfg_scale > 1 else None
        self._pipeline: QwenImageEditPipeline | None = None

    def specs(self, facts: SampleFacts) -> dict[str, TensorSpec]:
        """Return what one sample writes."""
        width = self.checkpoint.text_width
        prompt = max_prompt_tokens(self.checkpoint, facts, facts.max_instruction_bytes)
        negative = 1  # no tensor is empty
        if self._negative_prompt is not None:
            size = len(self._negative_prompt.encode())
            negative = max_prompt_tokens(self.checkpoint, facts, size)
        return {
            "prompt": TensorSpec((prompt, width), self._dtype_name),
            "negative": TensorSpec((negative, width), self._dtype_name),
        }

    def close(self) -> None:
        """Let go of the text encoder."""
        self._pipeline = None

    def _load(self) -> None:
        self._pipeline = load_text_half(self.checkpoint, self._device, self._dtype)

    def _work_bytes(self, facts: SampleFacts) -> int:
        return self.specs(facts)["prompt"].nbytes * _WORK_PER_TOKEN

    def _rehearse(self, facts: SampleFacts, size: Size) -> None:
        inputs = {"source": black_source(facts, self._device)}
        meta = meta_of(size, "x " * (facts.max_instruction_bytes // 2))
        self._compute(inputs, self._blank(self.specs(facts)), Item(index=0, attempt=0, meta=meta))

    def _compute(self, inputs: Tensors, outputs: Tensors, item: Item[SampleMeta]) -> SampleMeta:
        assert self._pipeline is not None, "`load` comes first"
        meta = item.meta
        height, width = prompt_size(self.checkpoint, meta.height, meta.width)
        image = as_image(picture_of(inputs["source"], meta))
        shown = self._pipeline.image_processor.resize(image, height, width)
        num_prompt = self._encode(meta.instruction, shown, outputs["prompt"])
        num_negative = 0
        if self._negative_prompt is None:
            outputs["negative"].zero_()
        else:
            num_negative = self._encode(self._negative_prompt, shown, outputs["negative"])
        return replace(meta, prompt_tokens=num_prompt, negative_tokens=num_negative)

    def _encode(self, text: str, shown: object, out: torch.Tensor) -> int:
        """Write the embeddings of one text to `out` and return how many tokens they are."""
        assert self._pipeline is not None
        embeddings, mask = self._pipeline.encode_prompt(
            [text], image=[shown] if self.checkpoint.is_plus else shown, device=self._device
        )
        assert mask is None, "one text has no padding"
        count = int(embeddings.shape[1])
        if count > len(out):
            raise ValueError(
                f"this instruction is {count} tokens with its picture, over {len(out)}"
            )
        out[:count] = embeddings[0]
        out[count:] = 0
        return count
