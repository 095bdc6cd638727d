"""Source and sink of a video as the kill matrix runs them: as they are, but for what is ordered."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property

from stages.base import Item, Job
from stages.video import ReadVideo, WriteVideo
from stages.video.pixels import Bytes
from stages.window import VideoFacts, WindowMeta
from tools.kill_order import Killer


class Read(ReadVideo):
    """ReadVideo that may be killed."""

    @cached_property
    def killer(self) -> Killer:
        """Made when the stage is opened, in its worker."""
        return Killer("read")

    def open(self, job: Job) -> VideoFacts:
        """Open the input."""
        self.killer.load()
        return super().open(job)

    def read(self, key: int | str, outputs: Mapping[str, Bytes]) -> WindowMeta:
        """Read a window."""
        self.killer.before(int(key))
        meta = super().read(key, outputs)
        self.killer.after(int(key))
        return meta


class Write(WriteVideo):
    """WriteVideo that may be killed."""

    @cached_property
    def killer(self) -> Killer:
        """Made when the stage is opened, in its worker."""
        return Killer("write")

    def open(self, facts: VideoFacts) -> None:
        """Open the output."""
        self.killer.load()
        super().open(facts)

    def write(
        self, item: Item[WindowMeta], inputs: Mapping[str, Bytes], meta: WindowMeta | None
    ) -> int:
        """Write a window."""
        self.killer.before(item.index)
        units = super().write(item, inputs, meta)
        self.killer.after(item.index)
        return units

    def finish(self, items: Sequence[int]) -> None:
        """Join the output."""
        self.killer.join()
        super().finish(items)
        self.killer.joined()
