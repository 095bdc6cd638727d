"""The stage `edit`: a source and its prompts in, the edited picture out."""

from __future__ import annotations

from dataclasses import replace

import torch

from stages.base import Item, TensorSpec, UserError
from stages.benchmark.facts import EDIT_AREA, SampleFacts, SampleMeta, edited_size
from stages.editing.denoise import Conditions, denoise, noise, pack, queued, unpack
from stages.editing.models import EDIT_PARTS, EditModels, load_edit_half
from stages.editing.pixels import from_vae, levels, resized, to_vae
from stages.editing.sizes import Size, image_tokens, largest_edit, max_prompt_tokens, pass_flop
from stages.editing.stage import EditingStage, Tensors, black_source, meta_of, picture_of

_VAE_PLANES = 14  # of the VAE's width, at the picture's size, that it has in hand at most
_ROWS = 30  # of the transformer's width, that a block has in hand for each token


class Edit(EditingStage):
    """Qwen-Image-Edit's VAE and transformer as a stage, Plus (2509, 2511) too.

    Reads `source`, `prompt` and `negative`. Writes `edited` [max_edited_bytes] uint8, the pixels
    of the picture first and zeros behind them; `meta` says its size, steps, passes, and the
    arithmetic of those passes.

    One sample at a time: diffusers resizes a batch of mixed sizes to the first one's without a
    word, and one picture of a megapixel fills a GPU. Guidance is two passes a step. The noise is
    made on the CPU from `meta.seed`. On a GPU, with all tensors there, this only queues work.

    Args:
        weights: folder of a pipeline, or `random:SEED[:PRESET]`.
        dtype: of weights and latents: float32, bfloat16 or float16.
        steps: Euler steps.
        true_cfg_scale: how far to steer away from the negative prompt; up to 1, not at all, which
            halves the work. `EncodePrompts` has to be told the same.
        area: pixels of the edited picture, about; its aspect is the source's.
        compile: compile the transformer's blocks, which takes up to a minute in `prepare`.

    Raises:
        UserError: one of these is out of range.
    """

    reads = ("source", "prompt", "negative")
    writes = ("edited",)
    parts = EDIT_PARTS

    def __init__(
        self,
        *,
        weights: str,
        dtype: str = "bfloat16",
        steps: int = 50,
        true_cfg_scale: float = 4.0,
        area: int = EDIT_AREA,
        compile: bool = False,  # noqa: A002 - as diffusers and torch call it
    ) -> None:
        super().__init__(weights=weights, dtype=dtype)
        if steps < 1:
            raise UserError(f"steps = {steps}: write 1 or more")
        if not 64**2 <= area <= 4096**2:
            raise UserError(f"area = {area}: write 4096 to 16777216 pixels")
        self._steps = steps
        self._true_cfg_scale = true_cfg_scale
        self._area = area
        self._compiles = compile
        self._models: EditModels | None = None
        self._levels = self._means = self._spreads = torch.empty(0)

    def specs(self, facts: SampleFacts) -> dict[str, TensorSpec]:
        """Return what one sample writes."""
        return {"edited": TensorSpec((largest_edit(facts, self._area),), "uint8")}

    def close(self) -> None:
        """Let go of the models."""
        self._models = None

    def _load(self) -> None:
        self._models = load_edit_half(self.checkpoint, self._device, self._dtype)
        if self._steps == 1 and self._models.scheduler.config.shift_terminal:
            raise UserError("steps = 1: this noise schedule ends short of 0, so write 2 or more")
        vae = self._models.vae.config
        places = (1, vae.z_dim, 1, 1, 1)
        self._levels = levels(self._device)
        self._means = torch.tensor(vae.latents_mean).view(places).to(self._device, self._dtype)
        self._spreads = torch.tensor(vae.latents_std).view(places).to(self._device, self._dtype)
        if self._compiles:
            self._models.transformer.compile_repeated_blocks(fullgraph=True)

    def _work_bytes(self, facts: SampleFacts) -> int:
        pixels = max(largest_edit(facts, self._area) // 3, EDIT_AREA)
        numbers = self.checkpoint.transformer
        width = numbers["attention_head_dim"] * numbers["num_attention_heads"]
        num_tokens = 2 * pixels // 256 + max_prompt_tokens(
            self.checkpoint, facts, facts.max_instruction_bytes
        )
        vae: int = pixels * self.checkpoint.vae["base_dim"] * _VAE_PLANES
        rows: int = num_tokens * width * _ROWS
        return max(vae, rows) * self._dtype.itemsize

    def _rehearse(self, facts: SampleFacts, size: Size) -> None:
        """Run two steps; where blocks are compiled, with as many shapes as make them general."""
        most = max_prompt_tokens(self.checkpoint, facts, facts.max_instruction_bytes)
        sizes = [size, facts.sizes[-1]] if self._compiles else [size]
        for one in dict.fromkeys(sizes):
            for count in (most, most - 1) if self._compiles else (most,):
                prompts = torch.zeros(
                    count, self.checkpoint.text_width, dtype=self._dtype, device=self._device
                )
                inputs = {
                    "source": black_source(facts, self._device),
                    "prompt": prompts,
                    "negative": prompts,
                }
                meta = replace(meta_of(one), prompt_tokens=count, negative_tokens=count)
                self._write(
                    inputs, self._blank(self.specs(facts)), _item(meta), steps=min(self._steps, 2)
                )

    def _compute(self, inputs: Tensors, outputs: Tensors, item: Item[SampleMeta]) -> SampleMeta:
        return self._write(inputs, outputs, item, steps=self._steps)

    def _write(
        self, inputs: Tensors, outputs: Tensors, item: Item[SampleMeta], *, steps: int
    ) -> SampleMeta:
        assert self._models is not None, "`load` comes first"
        meta = item.meta
        if self._true_cfg_scale > 1 and not meta.negative_tokens:
            raise ValueError("true_cfg_scale is over 1, and no negative prompt was encoded")
        size = edited_size(meta.height, meta.width, self._area)
        start = noise(meta.seed, size, self._models.vae.config.z_dim, self._dtype)
        conditions = self._conditions(inputs, meta, size)
        latents = denoise(
            self._models,
            pack(queued(start, self._device)),
            conditions,
            steps=steps,
            true_cfg_scale=self._true_cfg_scale,
            progress=item.progress,
        )
        self._decode(unpack(latents, size), outputs["edited"])
        return self._told(meta, size, conditions, steps)

    def _conditions(self, inputs: Tensors, meta: SampleMeta, size: Size) -> Conditions:
        shown = edited_size(meta.height, meta.width)  # whatever `area` is
        negative = None
        if self._true_cfg_scale > 1:
            negative = inputs["negative"][None, : meta.negative_tokens].to(self._device)
        return Conditions(
            source=self._encode(inputs["source"].to(self._device), meta, shown),
            prompt=inputs["prompt"][None, : meta.prompt_tokens].to(self._device),
            negative=negative,
            shapes=[[(1, high // 16, wide // 16) for high, wide in (size, shown)]],
        )

    def _encode(self, source: torch.Tensor, meta: SampleMeta, size: Size) -> torch.Tensor:
        assert self._models is not None
        picture = to_vae(resized(picture_of(source, meta), size), self._levels, self._dtype)
        latents = self._models.vae.encode(picture).latent_dist.mode()
        return pack(((latents - self._means) / self._spreads)[:, :, 0])

    def _decode(self, latents: torch.Tensor, out: torch.Tensor) -> None:
        assert self._models is not None
        # The reciprocal of a reciprocal: so diffusers does it, and so its last bits are.
        picture = self._models.vae.decode(
            latents / (1.0 / self._spreads) + self._means, return_dict=False
        )[0][:, :, 0]
        count = picture.numel()
        from_vae(picture, out[:count])
        out[count:] = 0

    def _told(self, meta: SampleMeta, size: Size, conditions: Conditions, steps: int) -> SampleMeta:
        texts = [meta.prompt_tokens, *([meta.negative_tokens] if self._true_cfg_scale > 1 else [])]
        num_image = image_tokens(size) + int(conditions.source.shape[1])
        numbers = self.checkpoint.transformer
        flop = steps * sum(pass_flop(numbers, num_image, num_text) for num_text in texts)
        return replace(
            meta,
            edited_height=size[0],
            edited_width=size[1],
            steps=steps,
            passes=steps * len(texts),
            tflop=flop / 1e12,
        )


def _item(meta: SampleMeta) -> Item[SampleMeta]:
    return Item(index=0, attempt=0, meta=meta)
