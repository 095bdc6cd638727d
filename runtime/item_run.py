"""One run of one stage on one item, wherever its tensors lie."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass

from msgspec.structs import replace

from ipc.messages import ItemAdmitted, ItemReady
from ipc.records import TensorHandle
from runtime.hosted import Hosted, pack_meta
from runtime.sink_items import SinkItems
from stages.base import Item, Part, Source, Stage


@dataclass(frozen=True, slots=True)
class Helps:
    """What a run needs of the worker it is in."""

    sink: SinkItems | None
    progress: Callable[[float], None]
    part: Part

    def for_queued(self) -> Helps:
        """Return those of a run that is only queued: what it tells now would count for another."""
        return Helps(self.sink, lambda _fraction: None, lambda _what: nullcontext())


@dataclass(slots=True)
class Run:
    """From its start, or its queueing on a GPU, until it is done."""

    hosted: Hosted
    done: ItemReady  # what travels on
    failed: str = ""  # why the item is given up here
    is_passed_on: bool = False  # to a stage of this worker that is queued behind it

    def call(
        self,
        inputs: Mapping[str, object],
        outputs: Mapping[str, object],
        written: Mapping[str, TensorHandle],
        helps: Helps,
    ) -> None:
        """Have the stage do its work, or queue it.

        Args:
            inputs: tensors by name, those of `hosted.reads` that there are.
            outputs: likewise, of `hosted.writes`.
            written: the handles of `outputs`, for those who come after.
            helps: of the worker.

        Raises:
            Exception: the stage's.
        """
        stage, ready = self.hosted.stage, self.done
        meta = ready.meta
        if isinstance(stage, Source):
            meta = pack_meta(stage.read(stage.keys()[ready.item], outputs))
        else:
            item = Item(
                index=ready.item,
                attempt=ready.attempt,
                meta=self.hosted.meta(ready.meta) if ready.meta else None,
                failed=ready.failed,
                progress=helps.progress,
                part=helps.part,
            )
            if isinstance(stage, Stage):
                meta = pack_meta(stage.run(inputs, outputs, item))
            else:
                assert helps.sink is not None
                helps.sink.write(item, inputs)
        self.done = replace(ready, handles=ready.handles | dict(written), meta=meta)


def as_ready(admitted: ItemAdmitted, source: str) -> ItemReady:
    """Return an item at the start of its life as one that is ready for the source."""
    return ItemReady(
        sender=admitted.sender,
        incarnation=admitted.incarnation,
        stage=source,
        item=admitted.item,
        attempt=admitted.attempt,
        handles={},
        meta=b"",
        failed=admitted.failed,
    )
