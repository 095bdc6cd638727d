"""A loaded Qwen3-VL: looks at pictures once, then answers questions about them in batches.

Source: Qwen3-VL Technical Report, arXiv:2511.21631, as transformers has it.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from transformers import GenerationConfig, StoppingCriteria, StoppingCriteriaList
from transformers.models.qwen3_vl.modeling_qwen3_vl import BaseModelOutputWithDeepstackFeatures

from stages.judging.judge import Asked, Picture
from stages.judging.weights import Loaded, load_checkpoint, make_random

_PAD = "<|image_pad|>"


@dataclass(frozen=True, slots=True)
class _Seen:
    """What the vision tower made of one picture."""

    grid: torch.Tensor  # [3]: frames, rows and columns of patches
    tokens: torch.Tensor  # [tokens, hidden]
    deepstack: tuple[torch.Tensor, ...]  # likewise, of each of its layers that are handed over


def load_qwen(model: str, *, device: str, dtype: str, max_pixels: int) -> Qwen:
    """Return the model of a folder or of `random:SEED[:PRESET]` on `device`.

    Raises:
        UserError: the weights are missing, or those of another model.
    """
    with _computing(torch.device(device)):
        make = make_random if model.startswith("random:") else load_checkpoint
        loaded = make(model, device, getattr(torch, dtype))
    return Qwen(loaded, torch.empty(0, device=device).device, max_pixels)


class Qwen:
    """The model and its processor on one device."""

    def __init__(self, loaded: Loaded, device: torch.device, max_pixels: int) -> None:
        self.device = device
        self.model: Any = loaded.model
        self.processor: Any = loaded.processor
        self._tokenizer: Any = loaded.processor.tokenizer
        self._tokenizer.padding_side = "left"
        self._size = dict(self.processor.image_processor.size)
        if max_pixels:
            self._size["longest_edge"] = max_pixels
            self._size["shortest_edge"] = min(self._size["shortest_edge"], max_pixels)
        ends = self.model.generation_config.eos_token_id or self._tokenizer.eos_token_id
        self._ends = [ends] if isinstance(ends, int) else list(ends)
        forward = inspect.signature(type(self.model.model).forward)
        self._takes_seen = "mm_encoder_outputs" in forward.parameters  # transformers after 5.17
        self._splits_layers = True  # whether `deepstack_features` are by picture, as after 5.17
        # Nothing of a checkpoint's own sampling: greedy is what can be repeated.
        self.model.generation_config = GenerationConfig()

    def look(self, pictures: Sequence[Picture[torch.Tensor]]) -> None:
        """Compute what the vision tower makes of those `pictures` that it has not seen yet."""
        unseen = [picture for picture in dict.fromkeys(pictures) if picture.made is None]
        if not unseen:
            return
        with _computing(self.device):
            images = self.processor.image_processor(
                images=[self.shown(picture) for picture in unseen],
                size=self._size,
                do_convert_rgb=False,
                return_tensors="pt",
                device=self.device,
                input_data_format="channels_first",
            )
            grids = images["image_grid_thw"].to(self.device)
            found = self.model.get_image_features(
                images["pixel_values"], image_grid_thw=grids, return_dict=True
            )
            self._splits_layers = not isinstance(found.deepstack_features[0], torch.Tensor)
            sizes = [len(tokens) for tokens in found.pooler_output]
            layers = [
                layer if self._splits_layers else torch.split(layer, sizes)
                for layer in found.deepstack_features
            ]
            for number, picture in enumerate(unseen):
                deepstack = tuple(layer[number] for layer in layers)
                picture.made = _Seen(grids[number], found.pooler_output[number], deepstack)

    def shown(self, picture: Picture[torch.Tensor]) -> torch.Tensor:
        """Return [3, height, width] uint8 at the size to show it at, as Pillow would resize it."""
        pixels = picture.pixels.to(self.device).permute(2, 0, 1)
        if tuple(pixels.shape[1:]) == picture.size:
            return pixels.contiguous()
        resized: torch.Tensor = torch.nn.functional.interpolate(
            pixels[None].float(), size=picture.size, mode="bicubic", antialias=True
        )
        return resized[0].round_().clamp_(0, 255).to(torch.uint8)

    def answers(
        self, asked: Sequence[Asked[torch.Tensor]], said: Callable[[float], None]
    ) -> list[str]:
        """Return what it says to each of `asked`, in one batch; `look` comes first."""
        limits = [one.question.max_tokens for one in asked]
        seen = [picture.made for one in asked for picture in one.pictures]
        with _computing(self.device):
            prompts = self._tokenized([self._prompt(one) for one in asked])
            steps = StoppingCriteriaList([_Ticking(said, max(limits))])
            tokens = self._generate(prompts, seen, max(limits), steps)
        texts = [row[:limit] for row, limit in zip(tokens.tolist(), limits, strict=True)]
        decoded: list[str] = self._tokenizer.batch_decode(
            texts, skip_special_tokens=True, clean_up_tokenization_spaces=False
        )
        return decoded

    def _prompt(self, asked: Asked[torch.Tensor]) -> str:
        question = asked.question
        parts = [*({"type": "image"} for _ in question.images), _text(question.text)]
        messages: list[dict[str, object]] = [{"role": "user", "content": parts}]
        if question.system:
            messages.insert(0, {"role": "system", "content": [_text(question.system)]})
        prompt: str = self.processor.apply_chat_template(
            messages, tokenize=False, add_generation_prompt=True
        )
        merged = self.processor.image_processor.merge_size**2
        pieces = prompt.split(_PAD)
        assert len(pieces) == 1 + len(asked.pictures), "the text is clean of special tokens"
        pads = [_PAD * (int(p.made.grid.prod()) // merged) for p in asked.pictures]
        return "".join(part for pair in zip(pieces, [*pads, ""], strict=True) for part in pair)

    def _tokenized(self, prompts: Sequence[str]) -> dict[str, torch.Tensor]:
        tokens = self._tokenizer(
            list(prompts), padding=True, return_tensors="pt", add_special_tokens=False
        )
        ids = tokens["input_ids"].to(self.device)
        is_image = ids == self.model.config.image_token_id
        return {
            "input_ids": ids,
            "attention_mask": tokens["attention_mask"].to(self.device),
            "mm_token_type_ids": is_image.int(),
        }

    def _generate(
        self,
        prompts: dict[str, torch.Tensor],
        seen: Sequence[_Seen],
        max_tokens: int,
        steps: StoppingCriteriaList,
    ) -> torch.Tensor:
        """Return [rows, tokens] of answers; rows that ended earlier are padded."""
        config = GenerationConfig(
            do_sample=False,
            max_new_tokens=max_tokens,
            eos_token_id=self._ends,
            pad_token_id=self._ends[0],
        )
        with self._showing(seen) as shown:
            tokens: torch.Tensor = self.model.generate(
                **prompts, **shown, generation_config=config, stopping_criteria=steps
            )
        return tokens[:, prompts["input_ids"].shape[1] :]

    @contextmanager
    def _showing(self, seen: Sequence[_Seen]) -> Iterator[dict[str, object]]:
        """Give the keywords with which the model takes pictures as they were seen."""
        if not seen:
            yield {}
            return
        layers = list(zip(*(one.deepstack for one in seen), strict=True))
        found = BaseModelOutputWithDeepstackFeatures(
            pooler_output=tuple(one.tokens for one in seen),
            deepstack_features=[
                tuple(layer) if self._splits_layers else torch.cat(layer) for layer in layers
            ],
        )
        grids = torch.stack([one.grid for one in seen])
        if self._takes_seen:
            yield {"mm_encoder_outputs": {"image": found}, "image_grid_thw": grids}
            return
        # It would look at pixels itself, so it is given none, and what it asks for instead.
        self.model.model.get_image_features = lambda *_arguments, **_keywords: found
        try:
            yield {"pixel_values": grids.new_zeros(0), "image_grid_thw": grids}
        finally:
            del self.model.model.get_image_features

    def fits(self, rows: int, image_bytes: Sequence[int], text_tokens: int) -> bool:
        """Whether so many rows of the largest images are answered without running out of memory."""
        try:
            self.rehearse(rows, image_bytes, text_tokens)
        except torch.OutOfMemoryError:
            torch.cuda.empty_cache()
            return False
        return True

    def rehearse(self, rows: int, image_bytes: Sequence[int], text_tokens: int) -> None:
        """Answer grey images of that size; on a CPU, where nothing is short, a small one.

        Raises:
            torch.OutOfMemoryError: that is too much.
        """
        if self.device.type == "cpu":
            rows, image_bytes, text_tokens = 1, (32 * 32 * 3, 32 * 32 * 3), 2
        with _computing(self.device):
            pictures = [self._grey(nbytes) for _ in range(rows) for nbytes in image_bytes]
            self.look(pictures)
            merged = self.processor.image_processor.merge_size**2
            pads = [_PAD * (int(picture.made.grid.prod()) // merged) for picture in pictures]
            each = len(image_bytes)
            texts = ["\n".join(pads[at : at + each]) for at in range(0, len(pads), each)]
            words = "a\n" * (text_tokens // 2)
            prompts = self._tokenized([f"{text}\n{words}" for text in texts])
            seen = [picture.made for picture in pictures]
            self._generate(prompts, seen, 2, StoppingCriteriaList())
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def _grey(self, nbytes: int) -> Picture[torch.Tensor]:
        """Return a square picture of at least `nbytes`, in whole tokens."""
        side = max(math.ceil(math.sqrt(nbytes / 3) / 32), 1) * 32
        pixels = torch.full((side, side, 3), 128, dtype=torch.uint8, device=self.device)
        return Picture(pixels, (side, side))


class _Ticking(StoppingCriteria):  # type: ignore[misc] # transformers has no types for it
    """Stops nothing: says after each token how many of the longest answer's there are."""

    def __init__(self, said: Callable[[float], None], max_tokens: int) -> None:
        self._said = said
        self._max_tokens = max_tokens
        self._steps = 0

    def __call__(self, input_ids: torch.Tensor, scores: object, **_kwargs: object) -> torch.Tensor:
        self._steps += 1
        self._said(min(self._steps / self._max_tokens, 1.0))
        return torch.zeros(len(input_ids), dtype=torch.bool, device=input_ids.device)


def _text(text: str) -> dict[str, object]:
    """Return a part of a message that cannot be taken for a special token."""
    return {"type": "text", "text": text.replace("<|", "< |")}


@contextmanager
def _computing(device: torch.device) -> Iterator[None]:
    with (
        torch.inference_mode(),
        torch.cuda.device(device) if device.type == "cuda" else (nullcontext()),
    ):
        yield
