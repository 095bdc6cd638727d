"""The judge that runs here: a Qwen3-VL, asked about a few edited images of a group at a time.

Importing this loads neither torch nor transformers: `load` does.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Literal

from stages.base import Footprint, UserError
from stages.benchmark.facts import GroupFacts
from stages.judging.checkpoint import Checkpoint, read_checkpoint
from stages.judging.judge import Answer, Asked, Judge, Resize, Said, part_of
from stages.vision import make_torchvision_importable

if TYPE_CHECKING:
    import torch

    from stages.judging.qwen import Qwen

logger = logging.getLogger(__name__)

Dtype = Literal["bfloat16", "float16", "float32"]

_BYTES = {"bfloat16": 2, "float16": 2, "float32": 4}
_TOKEN_PIXELS = 32 * 32  # of one token of an image
_TEXT_TOKENS = 3072  # of question, instruction and answer, about; longer ones only cost time


class Score(Judge["torch.Tensor"]):
    """Asks a Qwen3-VL, dense or MoE, by greedy decoding.

    All rows of a group are asked, in batches of the same composition whatever failed, since in
    bfloat16 the last bits of an answer depend on what is computed beside it; copies are not told.

    Args:
        weights: folder of a checkpoint in safetensors, or `random:SEED[:PRESET]`, PRESET one of 8b,
            30b-a3b, tiny and tiny-moe: it says a score that means nothing.
        protocol: by whose rules: origin, gedit or imgedit.
        resize: show the edited image at the source's size; see `Judge`.
        dtype: of weights and activations: bfloat16, float16 or float32.
        max_pixels: show larger images at about this size; 0: as the checkpoint's processor says.

    Raises:
        UserError: there is no such protocol, `resize` or `dtype`.
    """

    library = "torch"

    def __init__(
        self,
        *,
        weights: str,
        protocol: str,
        resize: Resize = "protocol",
        dtype: Dtype = "bfloat16",
        max_pixels: int = 0,
    ) -> None:
        super().__init__(protocol=protocol, resize=resize)
        if dtype not in _BYTES:
            raise UserError(f"dtype {dtype!r} is unknown; write one of {', '.join(_BYTES)}")
        if max_pixels and max_pixels < _TOKEN_PIXELS:
            raise UserError(f"max_pixels {max_pixels}: one token of an image has {_TOKEN_PIXELS}")
        self._weights = weights
        self._dtype = dtype
        self._max_pixels = max_pixels
        self._qwen: Qwen | None = None
        self._ready_for: tuple[int, int, int] | None = None  # group size, largest images
        self._rows_at_once = 0

    @cached_property
    def checkpoint(self) -> Checkpoint:
        """What model it is; reads the headers of its files at first use."""
        return read_checkpoint(self._weights)

    @property
    def name(self) -> str:
        """Its weights."""
        return self._weights

    @property
    def rows_at_once(self) -> int:
        """How many rows of a group are in one batch: all of it, or what fits into memory."""
        assert self._rows_at_once, "`prepare` comes first"
        return self._rows_at_once

    @property
    def qwen(self) -> Qwen:
        """The loaded model."""
        assert self._qwen is not None, "`load` comes first"
        return self._qwen

    def footprint(self, facts: GroupFacts, device: str) -> Footprint:
        """Return the weights by the files' headers, and about what one row takes.

        One row, since `prepare` asks fewer at once where a whole group does not fit.
        """
        each, known = _BYTES[self._dtype], self.checkpoint
        pixels = max(facts.max_source_bytes, facts.max_edited_bytes) // 3
        image = min(pixels, self._max_pixels or pixels) // _TOKEN_PIXELS + 1
        tokens = 2 * image + _TEXT_TOKENS
        cache = tokens * known.layers * known.kv_width
        features = 2 * image * known.hidden * (1 + known.deepstack)
        work = max(tokens * known.widest, 2 * image * 4 * known.vision_widest)
        shown = facts.group_size * (facts.max_source_bytes + facts.max_edited_bytes)
        return Footprint(
            weights_bytes=known.num_parameters * each,
            work_bytes=(cache + features + work) * each + (0 if device == "cpu" else shown),
        )

    def load(self, device: str) -> None:
        """Read the weights straight onto `device`, or make random ones there.

        Raises:
            UserError: the weights are missing, or those of another model; or transformers is.
        """
        read_checkpoint(self._weights)  # says what is wrong with it better than transformers does
        make_torchvision_importable()
        from stages.judging.qwen import load_qwen

        self._qwen = load_qwen(
            self._weights, device=device, dtype=self._dtype, max_pixels=self._max_pixels
        )

    def prepare(self, facts: GroupFacts, size: int) -> int:
        """Find out how many rows of a group fit into memory at once; the group stays as it is.

        Raises:
            UserError: not even one does.
        """
        wanted = (facts.group_size, facts.max_source_bytes, facts.max_edited_bytes)
        if self._ready_for == wanted:
            return size
        self._ready_for = None
        rows = facts.group_size
        while not self.qwen.fits(rows, wanted[1:], _TEXT_TOKENS):
            if rows == 1:
                raise UserError(
                    f"{self._weights}: one edited image and its source do not fit beside it"
                    f" into the memory of {self.qwen.device}; set max_pixels, or give it a GPU of"
                    " its own"
                )
            rows = _next_fewer(rows)
            logger.warning(
                "out of memory device=%s: groups of %d are asked %d at once",
                self.qwen.device,
                facts.group_size,
                rows,
            )
        self._rows_at_once, self._ready_for = rows, wanted
        return size

    def ask(self, asked: Sequence[Asked[torch.Tensor]], said: Said) -> Sequence[Answer]:
        """Ask the same question of all rows at once, one question of the protocol after another."""
        answers: dict[tuple[int, int], Answer] = {}
        indexes = sorted({one.index for one in asked})
        self.qwen.look([picture for one in asked for picture in one.pictures])
        for number, index in enumerate(indexes):
            batch = [one for one in asked if one.index == index]
            share = part_of(said, number / len(indexes), 1 / len(indexes))
            texts = self.qwen.answers(batch, share)
            for one, text in zip(batch, texts, strict=True):
                answers[one.row, one.index] = Answer(text)
        return [answers[one.row, one.index] for one in asked]

    def close(self) -> None:
        """Let go of the weights."""
        self._qwen = self._ready_for = None
        self._rows_at_once = 0


def _next_fewer(rows: int) -> int:
    """Return the next power of two below `rows`: 8, 4, 2, 1."""
    return 1 << (rows - 1).bit_length() - 1
