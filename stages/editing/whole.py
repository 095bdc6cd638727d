"""The stage `edit` of any pipeline of diffusers that takes a picture and a text, as it is."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from stages.base import Item, TensorSpec, UserError
from stages.benchmark.facts import EDIT_AREA, SampleFacts, SampleMeta, edited_size
from stages.editing.checkpoint import Checkpoint
from stages.editing.models import EDIT_PARTS, TEXT_PARTS, import_libraries, load_whole
from stages.editing.pixels import as_image, resized
from stages.editing.sizes import Size, largest_edit
from stages.editing.stage import EditingStage, Tensors, black_source, meta_of, picture_of

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline
    from PIL.Image import Image

_GIVEN = ("image", "prompt", "generator", "output_type", "return_dict", "callback_on_step_end")
_MIN_WORK_BYTES = 2**30


class EditWhole(EditingStage):
    """An edit pipeline of diffusers as one stage: FluxKontextPipeline, QwenImageEditPipeline, ...

    Reads `source`, writes `edited` as `Edit` does. It is diffusers' own call with a picture, the
    instruction and a generator on the CPU; what else it takes stands in `call`. A pipeline that
    takes `height` and `width` is told the edit's size; another is shown the source at that size.
    On a GPU it waits for its work. `meta.tflop` stays 0: nothing is known of the arithmetic.

    Args:
        weights: folder of the pipeline.
        pipeline: its class in diffusers.
        dtype: of weights: float32, bfloat16 or float16.
        call: keywords of the pipeline's call, `{num_inference_steps: 28, guidance_scale: 2.5}`.
        area: pixels of the edited picture, about; its aspect is the source's.

    Raises:
        UserError: `dtype`, `pipeline` or a keyword of `call` cannot be.
    """

    reads = ("source",)
    writes = ("edited",)

    def __init__(
        self,
        *,
        weights: str,
        pipeline: str,
        dtype: str = "bfloat16",
        call: Mapping[str, Any] | None = None,
        area: int = EDIT_AREA,
    ) -> None:
        super().__init__(weights=weights, dtype=dtype)
        self.takes = (pipeline,)
        self._call = dict(call or {})
        self._area = area
        self._pipeline: Any = None
        self._accepts: frozenset[str] = frozenset()
        self._num_passes = 0
        if taken := sorted(self._call.keys() & set(_GIVEN)):
            raise UserError(f"call: `{taken[0]}` is given by the stage itself; leave it out")

    def specs(self, facts: SampleFacts) -> dict[str, TensorSpec]:
        """Return what one sample writes."""
        return {"edited": TensorSpec((largest_edit(facts, self._area),), "uint8")}

    def close(self) -> None:
        """Let go of the pipeline."""
        self._pipeline = None

    def _parts(self, checkpoint: Checkpoint) -> tuple[str, ...]:
        if checkpoint.preset:
            return (*TEXT_PARTS, *EDIT_PARTS)
        return checkpoint.components_with_weights()

    def _load(self) -> None:
        self._accepts = self._keywords(_class_named(self.takes[0]))
        self._pipeline = load_whole(self.checkpoint, self._device, self._dtype)
        self._pipeline.set_progress_bar_config(disable=True)
        for name in ("transformer", "unet"):
            if isinstance(model := getattr(self._pipeline, name, None), torch.nn.Module):
                model.register_forward_pre_hook(self._count_pass)

    def _keywords(self, known: type) -> frozenset[str]:
        accepts = frozenset(inspect.signature(known.__call__).parameters)
        if missing := [name for name in ("image", "prompt") if name not in accepts]:
            raise UserError(f"pipeline {known.__name__}: it edits nothing: no `{missing[0]}`")
        if unknown := sorted(self._call.keys() - accepts):
            near = difflib.get_close_matches(unknown[0], accepts, 1)
            hint = f"; did you mean `{near[0]}`?" if near else ""
            raise UserError(f"call: {known.__name__} takes no `{unknown[0]}`{hint}")
        return accepts

    def _count_pass(self, _model: object, _arguments: object) -> None:
        self._num_passes += 1

    def _work_bytes(self, facts: SampleFacts) -> int:
        return _MIN_WORK_BYTES + 64 * largest_edit(facts, self._area) * self._dtype.itemsize

    def _rehearse(self, facts: SampleFacts, size: Size) -> None:
        # The whole call: nobody knows which of its keywords would make it shorter.
        inputs = {"source": black_source(facts, self._device)}
        item = Item(index=0, attempt=0, meta=meta_of(size, "x"))
        self._compute(inputs, self._blank(self.specs(facts)), item)

    def _compute(self, inputs: Tensors, outputs: Tensors, item: Item[SampleMeta]) -> SampleMeta:
        assert self._pipeline is not None, "`load` comes first"
        meta, self._num_passes, steps = item.meta, 0, 0
        size = edited_size(meta.height, meta.width, self._area)

        def step_is_done(
            pipeline: DiffusionPipeline, number: int, _time: object, tensors: dict[str, Any]
        ) -> dict[str, Any]:
            nonlocal steps
            steps = number + 1
            item.progress(min(1.0, steps / max(1, pipeline.num_timesteps)))
            return tensors

        given: dict[str, Any] = {"callback_on_step_end": step_is_done}
        picture = picture_of(inputs["source"], meta)
        if {"height", "width"} <= self._accepts:
            given |= {"height": size[0], "width": size[1]}
        else:
            picture = resized(picture.cpu(), size)
        given = {name: value for name, value in given.items() if name in self._accepts}
        edited = self._pipeline(
            **(given | self._call),
            image=as_image(picture),
            prompt=meta.instruction,
            generator=torch.Generator().manual_seed(meta.seed),
        ).images[0]
        return self._written(edited, outputs["edited"], meta, steps)

    def _written(
        self, edited: Image, out: torch.Tensor, meta: SampleMeta, steps: int
    ) -> SampleMeta:
        pixels = torch.from_numpy(np.array(edited.convert("RGB")))
        height, width = int(pixels.shape[0]), int(pixels.shape[1])
        if pixels.numel() > len(out):
            raise ValueError(
                f"the edit is {width}x{height}, larger than any that was planned for; raise `area`"
            )
        out[: pixels.numel()] = pixels.flatten()
        out[pixels.numel() :] = 0
        return replace(
            meta,
            edited_height=height,
            edited_width=width,
            steps=steps,
            passes=self._num_passes,
        )


def _class_named(name: str) -> type:
    import_libraries()
    import diffusers

    found = getattr(diffusers, name, None)
    if isinstance(found, type) and issubclass(found, diffusers.DiffusionPipeline):
        return found
    known = [one for one in dir(diffusers) if one.endswith("Pipeline")]
    near = difflib.get_close_matches(name, known, 1)
    hint = f"; did you mean {near[0]}?" if near else ""
    raise UserError(
        f"pipeline {name}: diffusers {diffusers.__version__} has none of this name{hint}"
    )
