"""One stage object inside a worker (or a notebook): building it, and its values on the wire."""

from __future__ import annotations

import difflib
import importlib
import inspect
from collections.abc import Mapping
from typing import Any, Protocol

import msgspec

from ipc.message import MAX_META_BYTES
from ipc.records import StageDescription, StageMemory, StageTensor, StageUse
from stages.base import Job, Sink, Source, Stage, TensorSpec, UserError

# What a stage's facts and meta are is known to stages of one pipeline only; here they are opaque.
AnyStage = Stage[Any, Any, Any] | Source[Any, Any, Any] | Sink[Any, Any, Any]
Options = Mapping[str, object]


class Facts(Protocol):
    """What the runtime knows of a pipeline's facts."""

    @property
    def job(self) -> Job:
        """What was asked."""


class Hosted:
    """A built stage with its name in the pipeline."""

    def __init__(self, name: str, stage: AnyStage, accepts: tuple[str, ...]) -> None:
        self.name = name
        self.stage = stage
        self.accepts = accepts  # constructor keywords
        self.reads: tuple[str, ...] = () if isinstance(stage, Source) else stage.reads
        self.writes: tuple[str, ...] = () if isinstance(stage, Sink) else stage.writes
        self._facts: msgspec.msgpack.Decoder[Any] = msgspec.msgpack.Decoder(stage.facts_type)
        self._meta: msgspec.msgpack.Decoder[Any] = msgspec.msgpack.Decoder(stage.meta_type)

    def describe(self) -> StageDescription:
        """Return what the plan must know before anything is loaded."""
        kind = "stage"
        if isinstance(self.stage, Source | Sink):
            kind = "source" if isinstance(self.stage, Source) else "sink"
        return StageDescription(
            name=self.name,
            kind=kind,
            reads=self.reads,
            writes=self.writes,
            accepts=self.accepts,
            library=self.stage.library,
            items_per_segment=self.stage.items_per_segment if isinstance(self.stage, Sink) else 0,
        )

    def specs(self, facts: bytes) -> list[StageTensor]:
        """Return what one item writes here, checked against what the stage says it writes."""
        if isinstance(self.stage, Sink):
            return []
        specs: dict[str, TensorSpec] = self.stage.specs(self.facts(facts))
        if set(specs) != set(self.writes):
            raise TypeError(f"{self.name}: specs of {sorted(specs)}, but writes {self.writes}")
        return [
            StageTensor(stage=self.name, name=name, shape=spec.shape, dtype=spec.dtype)
            for name, spec in specs.items()
        ]

    def memory(self, facts: bytes, device: str) -> list[StageMemory]:
        """Return what it takes on `device`; sources and sinks take little, and do not tell."""
        if not isinstance(self.stage, Stage):
            return []
        taken = self.stage.footprint(self.facts(facts), device)
        return [
            StageMemory(
                stage=self.name, weights_bytes=taken.weights_bytes, work_bytes=taken.work_bytes
            )
        ]

    def facts(self, facts: bytes) -> Facts:
        """Return the facts as this stage knows them."""
        decoded: Facts = self._facts.decode(facts)
        return decoded

    def meta(self, meta: bytes) -> object:
        """Return the meta as this stage knows it."""
        decoded: object = self._meta.decode(meta)
        return decoded


def pack(value: object) -> bytes:
    """Return facts, meta, a job or keyword arguments as they travel."""
    return msgspec.msgpack.encode(value)


def pack_meta(meta: object) -> bytes:
    """Return an item's meta as it travels.

    Raises:
        ValueError: it is too large; what is large belongs into a tensor.
    """
    packed = pack(meta)
    if len(packed) > MAX_META_BYTES:
        raise ValueError(f"meta of {len(packed)} bytes; at most {MAX_META_BYTES} travel")
    return packed


def unpack_job(job: bytes) -> Job:
    """Return the job of an `OpenSource`."""
    return msgspec.msgpack.decode(job, type=Job)


def build(use: StageUse) -> Hosted:
    """Import and construct a stage.

    Raises:
        UserError: there is no such class, or it does not take these keywords.
    """
    stage_class = _find(use)
    keywords = tuple(
        name
        for name, parameter in inspect.signature(stage_class).parameters.items()
        if parameter.kind in (parameter.KEYWORD_ONLY, parameter.POSITIONAL_OR_KEYWORD)
    )
    defaults: Options = msgspec.msgpack.decode(use.defaults)
    options: Options = msgspec.msgpack.decode(use.options)
    for key in options:
        if key not in keywords:
            near = difflib.get_close_matches(key, keywords, 1)
            hint = f"did you mean `{near[0]}`?" if near else f"it takes {', '.join(keywords)}"
            raise UserError(f"stages.{use.name}.with.{key}: unknown to {use.use}; {hint}")
    given = {key: value for key, value in defaults.items() if key in keywords} | dict(options)
    try:
        return Hosted(use.name, stage_class(**given), keywords)
    except (TypeError, ValueError) as error:
        raise UserError(f"stages.{use.name}: {use.use} cannot be built: {error}") from error


def _find(use: StageUse) -> type[AnyStage]:
    module_name, _, class_name = use.use.partition(":")
    try:
        module = importlib.import_module(module_name)
    except ImportError as error:
        raise UserError(f"stages.{use.name}.use: cannot import {module_name}: {error}") from error
    stage_class = getattr(module, class_name, None)
    if not (isinstance(stage_class, type) and issubclass(stage_class, Stage | Source | Sink)):
        raise UserError(
            f"stages.{use.name}.use: {module_name} has no stage, source or sink `{class_name}`"
        )
    return stage_class
