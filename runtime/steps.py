"""What a worker does with its stages around the items: build, ask, load, prepare, join."""

from __future__ import annotations

import importlib.metadata
import sys
import time
from collections.abc import Iterator
from typing import Any, TypeVar

from ipc.messages import AnyMessage
from ipc.setup_messages import (
    Configure,
    Configured,
    Finish,
    Finished,
    Load,
    Loaded,
    OpenSource,
    Prepare,
    Prepared,
    SourceOpened,
    Specified,
    Specify,
)
from runtime.hosted import Hosted, build, pack, unpack_job
from runtime.path import Identity
from stages.base import Sink, Source, Stage

SHAPING_LIBRARIES = ("torch", "numpy", "av")  # whose version may change a result's bytes
S = TypeVar("S", Stage[Any, Any, Any], Source[Any, Any, Any], Sink[Any, Any, Any])


class Steps:
    """The stages of one worker, in a process of its own or inline."""

    def __init__(self, identity: Identity) -> None:
        self._identity = identity
        self.hosted: dict[str, Hosted] = {}
        self.at = ""  # the stage at work, for the report of a failure

    def answer(self, message: AnyMessage) -> AnyMessage:
        """Do what `message` says.

        Raises:
            UserError: it is the user's to mend.
        """
        match message:
            case Configure():
                return self._configure(message)
            case OpenSource():
                return self._open_source(message)
            case Specify():
                return self._specify(message)
            case Load():
                return self._load(message)
            case Prepare():
                return self._prepare(message)
            case Finish():
                return self._finish(message)
            case _:
                raise TypeError(f"no step: {message}")

    def open_sinks(self, facts: bytes) -> None:
        """Make the sinks ready to write a job."""
        for hosted, sink in self._each(Sink):
            sink.open(hosted.facts(facts))

    def close(self) -> None:
        """Close all stages."""
        for hosted in self.hosted.values():
            hosted.stage.close()

    def _each(self, kind: type[S]) -> Iterator[tuple[Hosted, S]]:
        for name, hosted in self.hosted.items():
            if isinstance(hosted.stage, kind):
                self.at = name
                yield hosted, hosted.stage

    def _configure(self, message: Configure) -> Configured:
        for use in message.stages:
            self.at = use.name
            self.hosted[use.name] = build(use)
        descriptions = tuple(hosted.describe() for hosted in self.hosted.values())
        return Configured(**self._identity, stages=descriptions)

    def _open_source(self, message: OpenSource) -> SourceOpened:
        ((_hosted, source),) = self._each(Source)
        facts = source.open(unpack_job(message.job))
        return SourceOpened(
            **self._identity,
            facts=pack(facts),
            num_items=len(source.keys()),
            item_size=source.item_size,
            unit=source.unit,
            num_units=source.num_units(),
            warnings=tuple(source.warnings),
            broken=source.broken,
            needs=tuple(source.needs),
        )

    def _specify(self, message: Specify) -> Specified:
        tensors, memory = [], []
        for name, hosted in self.hosted.items():
            self.at = name
            tensors += hosted.specs(message.facts)
            memory += hosted.memory(message.facts, message.device)
        return Specified(**self._identity, tensors=tuple(tensors), memory=tuple(memory))

    def _load(self, message: Load) -> Loaded:
        began = time.monotonic()
        for _hosted, stage in self._each(Stage):
            stage.begin_load(message.device)
        for _hosted, stage in self._each(Stage):
            stage.load(message.device)
        versions = {
            name: importlib.metadata.version(name)
            for name in SHAPING_LIBRARIES
            if name in sys.modules
        }
        return Loaded(**self._identity, load_s=time.monotonic() - began, versions=versions)

    def _prepare(self, message: Prepare) -> Prepared:
        began, size = time.monotonic(), message.size
        for hosted, stage in self._each(Stage):
            stage.begin_prepare(hosted.facts(message.facts), size)
        for hosted, stage in self._each(Stage):
            size = min(size, stage.prepare(hosted.facts(message.facts), size))
        return Prepared(**self._identity, size=size, prepare_s=time.monotonic() - began)

    def _finish(self, message: Finish) -> Finished:
        ((_hosted, sink),) = self._each(Sink)
        sink.finish(range(message.num_items))
        return Finished(**self._identity, warnings=tuple(sink.warnings))
