"""Prompts that are kept: where the text encoder must leave its GPU before anything is edited.

`SavePrompts` ends a section of its own, `ReadPrompts` begins the next one with the same samples in
the same order. Between them stands one file a sample, in the work_dir of the first:

    <work_dir>/prompts/NAME.safetensors    embeddings, and the meta as JSON in its header
    <work_dir>/prompts/NAME.json           instead: why there are none
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load as load_tensors
from safetensors.numpy import save as save_tensors

from stages.base import Durable, Item, Job, Sink, TensorSpec, UserError
from stages.benchmark.facts import EDIT_AREA, MAX_REASON_CHARS, SampleFacts, SampleMeta
from stages.benchmark.items import read_items
from stages.benchmark.pictures import sync_folder, write_file
from stages.benchmark.read import ReadSamples
from stages.benchmark.samples import Sample, file_name
from stages.editing.prompts import EncodePrompts
from stages.output import publish

FOLDER = "prompts"
TENSORS = ("prompt", "negative")

Numbers = NDArray[np.generic]  # bfloat16 as uint16


class SavePrompts(Sink[Numbers, SampleFacts, SampleMeta]):
    """Makes embeddings durable, sample by sample: some 10 MB each at a megapixel."""

    library: ClassVar[Literal["numpy", "torch"]] = "numpy"
    facts_type: ClassVar[type] = SampleFacts
    meta_type: ClassVar[type] = SampleMeta
    reads: ClassVar[tuple[str, ...]] = TENSORS

    def __init__(self) -> None:
        self._facts: SampleFacts | None = None
        self._items: tuple[Sample, ...] = ()
        self._durable: list[Durable] = []

    def open(self, facts: SampleFacts) -> None:
        """Make the folder."""
        self._facts, self._durable = facts, []
        self._items = read_items(facts.job.work_dir)
        self._path("").mkdir(mode=0o700, exist_ok=True)

    def write(
        self, item: Item[SampleMeta], inputs: Mapping[str, Numbers], meta: SampleMeta | None
    ) -> int:
        """Make one sample durable, or the reason why there is nothing of it."""
        name = file_name(self._items[item.index].id)
        if meta is None or item.failed:
            name += ".json"
            data = json.dumps({"reason": item.failed[:MAX_REASON_CHARS]}).encode()
        else:
            name += ".safetensors"
            counts = (meta.prompt_tokens, meta.negative_tokens)
            kept = {t: inputs[t][:count] for t, count in zip(TENSORS, counts, strict=True) if count}
            told = {"meta": msgspec.json.encode(meta).decode()}
            data = save_tensors(kept, metadata=told)
        write_file(self._path(name), data)
        sync_folder(self._path(""))
        self._durable.append(Durable(items=(item.index,), files=(f"{FOLDER}/{name}",)))
        return int(not item.failed)

    def commit(self) -> list[Durable]:
        """Return what was written since the last call."""
        durable, self._durable = self._durable, []
        return durable

    def finish(self, items: Sequence[int]) -> None:
        """Write the list of what is kept; the files themselves stay in the run directory.

        Raises:
            OSError: the disk is full or broken.
        """
        assert self._facts is not None, "open comes first"
        output = Path(self._facts.job.output)
        temporary = output.with_name(f".{output.name}.partial")
        lines = (json.dumps({"id": self._items[item].id}) + "\n" for item in sorted(items))
        temporary.write_text("".join(lines))
        publish(temporary, output, Path(self._facts.job.work_dir))

    def _path(self, name: str) -> Path:
        assert self._facts is not None, "open comes first"
        return Path(self._facts.job.work_dir) / FOLDER / name


class ReadPrompts(ReadSamples):
    """Reads samples as `ReadSamples` does, and beside each the prompts that were kept of it.

    Args:
        weights: of the editor, as for `EncodePrompts`, whose shapes these are.
        dtype: likewise.
        negative_prompt: likewise.
        true_cfg_scale: likewise.
        data_format: this and all others as for `ReadSamples`, and the same as there.
        categories: likewise.
        limit: likewise.
        languages: likewise.
        images: likewise.
        area: likewise.
    """

    writes: ClassVar[tuple[str, ...]] = ("source", *TENSORS)

    def __init__(
        self,
        *,
        weights: str,
        dtype: str = "bfloat16",
        negative_prompt: str = " ",
        true_cfg_scale: float = 4.0,
        data_format: str = "auto",
        categories: Sequence[str] = (),
        limit: int = 0,
        languages: Sequence[str] = (),
        images: str = "",
        area: int = EDIT_AREA,
    ) -> None:
        super().__init__(
            data_format=data_format,
            categories=categories,
            limit=limit,
            languages=languages,
            images=images,
            area=area,
        )
        self._encoder = EncodePrompts(
            weights=weights,
            dtype=dtype,
            negative_prompt=negative_prompt,
            true_cfg_scale=true_cfg_scale,
        )
        self._folder = Path()

    def open(self, job: Job) -> SampleFacts:
        """Open the set, and look where its prompts are.

        Raises:
            UserError: the set cannot be read, or no section of this run keeps prompts.
        """
        if not job.earlier:
            raise UserError("no section before this one keeps prompts: run them together")
        facts = super().open(job)
        self._folder = Path(job.earlier) / FOLDER
        self.needs = range(1, len(self.keys()) + 1)
        return facts

    def specs(self, facts: SampleFacts) -> dict[str, TensorSpec]:
        """Return `source`, and what `EncodePrompts` writes."""
        return {**super().specs(facts), **self._encoder.specs(facts)}

    def read(self, key: int | str, outputs: Mapping[str, NDArray[np.uint8]]) -> SampleMeta:
        """Write the pixels of the sample `key`, and its prompts.

        Raises:
            UserError: it cannot be used, or has no prompts.
        """
        super().read(key, outputs)
        tensors, meta = self._kept(str(key))
        for name in TENSORS:
            kept, out = tensors.get(name), outputs[name]
            count = 0 if kept is None else len(kept)
            if kept is not None:
                out[:count] = kept
            out[count:] = 0
        return meta

    def _kept(self, sample: str) -> tuple[Mapping[str, Numbers], SampleMeta]:
        path = self._folder / f"{file_name(sample)}.safetensors"
        try:
            data = path.read_bytes()
            meta = msgspec.json.decode(_meta_text(data), type=SampleMeta)
            return load_tensors(data), meta
        except FileNotFoundError:
            raise UserError(f"sample {sample}: {self._reason(path)}") from None
        except (OSError, SafetensorError, msgspec.DecodeError, KeyError, ValueError) as error:
            raise UserError(f"{path}: is damaged ({error})") from error

    def _reason(self, path: Path) -> str:
        try:
            return str(json.loads(path.with_suffix(".json").read_bytes())["reason"])
        except (OSError, ValueError, KeyError):
            return "no prompt of it was kept"


def _meta_text(data: bytes) -> str:
    """Return the meta in the header of a safetensors file, which begins with its length."""
    length = int.from_bytes(data[:8], "little")
    return str(json.loads(data[8 : 8 + length])["__metadata__"]["meta"])
