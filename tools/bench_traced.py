"""EDEN's stages that also trace the kernels of a part of a run, for tools/bench_kernels.py.

A worker has one such stage, and the trace has the kernels of all its stages. Tracing slows a run
down, which is told by comparing with a run that is not traced; nothing here runs in that one.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

# Both must be set before CUPTI starts: started again between captured graphs it has crashed.
os.environ.setdefault("TEARDOWN_CUPTI", "0")
os.environ.setdefault("DISABLE_CUPTI_LAZY_REINIT", "1")

import torch
from torch.profiler import ProfilerActivity, profile

from stages.base import Item, UserError
from stages.eden import Decode, Denoise, Encode
from stages.eden.stage import EdenStage
from stages.window import VideoFacts, WindowMeta
from tools.bench_kernels import Part, write_part


class Traced(EdenStage[Any]):
    """Mixed into one of EDEN's stages, whose keywords it has, and one more.

    Args:
        traced: "AFTER:ITEMS": which of this worker's items are traced, ITEMS of them after AFTER.
        keywords: of the stage itself.
    """

    def __init_subclass__(cls) -> None:
        """Show the stage's keywords as its own: that is how they are found."""
        own = inspect.signature(cls.__mro__[2])
        traced = inspect.Parameter("traced", inspect.Parameter.KEYWORD_ONLY)
        cls.__signature__ = own.replace(  # type: ignore[attr-defined]
            parameters=[*own.parameters.values(), traced]
        )

    def __init__(self, *, traced: str, **keywords: Any) -> None:  # noqa: ANN401
        super().__init__(**keywords)
        after, colon, items = traced.partition(":")
        if not (colon and after.isdigit() and items.isdigit() and int(items)):
            raise UserError(f"traced = {traced!r}: write AFTER:ITEMS, such as 8:32")
        self._after, self._items = int(after), int(items)
        self._num_runs = -1  # of the job at hand; -1: not prepared
        self._num_pairs = self._loaded_bytes = 0
        self._profile: profile | None = None

    def load(self, device: str) -> None:
        """Start CUPTI before anything is captured, then load."""
        self._on_gpu = torch.device(device).type == "cuda"
        with self._new_profile():
            torch.zeros(1, device=device)
        super().load(device)

    def prepare(self, facts: VideoFacts, size: int) -> int:
        """Prepare; what the rehearsals run is no item."""
        self._end()
        if self._on_gpu and not self._loaded_bytes:  # all stages of this worker have loaded
            self._loaded_bytes = torch.cuda.memory_allocated()
        self._num_runs = -1
        size = super().prepare(facts, size)
        self._num_runs = self._num_pairs = 0
        return size

    def run(
        self,
        inputs: Mapping[str, torch.Tensor],
        outputs: Mapping[str, torch.Tensor],
        item: Item[WindowMeta],
    ) -> WindowMeta:
        """Run, and begin or end the trace where it is time."""
        if self._num_runs == self._after:
            self._begin()
        elif self._num_runs == self._after + self._items:
            self._finish()
        if self._num_runs >= 0:
            self._num_runs += 1
            self._num_pairs += item.meta.num_pairs if self._profile else 0
        return super().run(inputs, outputs, item)

    def close(self) -> None:
        """End a trace that was not finished, without a file."""
        self._end()
        super().close()

    def _begin(self) -> None:
        self._synchronize()  # kernels of earlier items are no part of it
        self._profile = self._new_profile()
        self._profile.start()

    def _finish(self) -> None:
        assert self._profile is not None
        self._synchronize()
        self._profile.stop()
        device = torch.cuda.get_device_properties() if self._on_gpu else None
        part = Part(
            kind="kernel" if self._on_gpu else "cpu_op",
            pid=os.getpid(),
            gpu=f"GPU-{device.uuid}" if device else "",
            num_items=self._items,
            num_pairs=self._num_pairs,
            loaded_bytes=self._loaded_bytes,
        )
        write_part(Path(self.facts.job.work_dir), part, self._profile.export_chrome_trace)
        self._profile = None

    def _end(self) -> None:
        if self._profile is not None:
            self._profile.stop()
            self._profile = None

    def _synchronize(self) -> None:
        if self._on_gpu:
            torch.cuda.synchronize()

    def _new_profile(self) -> profile:
        activity = ProfilerActivity.CUDA if self._on_gpu else ProfilerActivity.CPU
        return profile(activities=[activity])


class TracedEncode(Traced, Encode):
    """`Encode`."""


class TracedDenoise(Traced, Denoise):
    """`Denoise`."""


class TracedDecode(Traced, Decode):
    """`Decode`."""
