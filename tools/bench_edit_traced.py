"""Editor and judge of a run that is measured: they stamp items, and trace the kernels of some.

A trace begins with an item and goes on to the end of the worker, where it is written: so it delays
no item. Only what is asked for is traced; the other items run as they do in the product.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

# Both must be set before CUPTI starts.
os.environ.setdefault("TEARDOWN_CUPTI", "0")
os.environ.setdefault("DISABLE_CUPTI_LAZY_REINIT", "1")

import torch
from torch.profiler import ProfilerActivity, profile, record_function

from stages.base import Item, Stage
from stages.editing import Edit
from stages.judging import Score
from tools.bench_edit_ends import NEVER, stamp
from tools.bench_edit_kernels import PASS, Traced, trace_files


class _Measured(Stage[torch.Tensor, Any, Any]):
    """Mixed into a stage, whose keywords it has, and one more.

    Args:
        traced: from which of this worker's items on; -1: none.
        keywords: of the stage itself.
    """

    def __init_subclass__(cls) -> None:
        """Show the stage's keywords as its own: that is how they are found."""
        own = inspect.signature(cls.__mro__[2])
        traced = inspect.Parameter("traced", inspect.Parameter.KEYWORD_ONLY, default=NEVER)
        cls.__signature__ = own.replace(  # type: ignore[attr-defined]
            parameters=[*own.parameters.values(), traced]
        )

    def __init__(self, *, traced: int = NEVER, **keywords: Any) -> None:  # noqa: ANN401
        super().__init__(**keywords)
        self._traced, self._num_runs = traced, 0
        self._on_gpu = False
        self._work_dir = ""
        self._profile: profile | None = None

    def load(self, device: str) -> None:
        """Start CUPTI first, as late starts take long."""
        self._on_gpu = torch.device(device).type == "cuda"
        if self._traced != NEVER:
            with self._new_profile():
                torch.zeros(1, device=device)
        super().load(device)

    def prepare(self, facts: Any, size: int) -> int:  # noqa: ANN401
        """Prepare; what the rehearsals run is no item."""
        self._work_dir = facts.job.work_dir
        return super().prepare(facts, size)

    def run(
        self,
        inputs: Mapping[str, torch.Tensor],
        outputs: Mapping[str, torch.Tensor],
        item: Item[Any],
    ) -> Any:  # noqa: ANN401
        """Run, and begin the trace where it is time."""
        stamp(self._work_dir, "began", item.index)
        if self._num_runs == self._traced:
            self._begin()
        self._num_runs += 1
        return super().run(inputs, outputs, item)

    def close(self) -> None:
        """Write the trace, if there is one."""
        if self._profile is not None:
            self._synchronize()
            self._profile.stop()
            path = trace_files(Path(self._work_dir), type(self).__name__)
            kind = "kernel" if self._on_gpu else "cpu_op"
            self._profile.export_chrome_trace(str(path.with_suffix(".trace.json")))
            Traced(kind=kind, num_items=self._num_runs - self._traced).write(path)
            self._profile = None
        super().close()

    def _begin(self) -> None:
        self._synchronize()  # kernels of earlier items are no part of it
        self._profile = self._new_profile()
        self._profile.start()

    def _synchronize(self) -> None:
        if self._on_gpu:
            torch.cuda.synchronize()

    def _new_profile(self) -> profile:
        activity = ProfilerActivity.CUDA if self._on_gpu else ProfilerActivity.CPU
        return profile(activities=[activity])


class MeasuredEdit(_Measured, Edit):
    """`Edit`; the trace has a mark before and after each pass of the transformer."""

    def _begin(self) -> None:
        super()._begin()
        assert self._models is not None
        open_ranges: list[record_function] = []

        def before(*_arguments: object) -> None:
            if self._on_gpu:
                torch.cuda._sleep(1)  # type: ignore[no-untyped-call] # a kernel of its own name
            else:
                open_ranges.append(record_function(PASS))
                open_ranges[-1].__enter__()

        def after(*_arguments: object) -> None:
            if self._on_gpu:
                torch.cuda._sleep(1)  # type: ignore[no-untyped-call]
            else:
                open_ranges.pop().__exit__(None, None, None)

        self._models.transformer.register_forward_pre_hook(before)
        self._models.transformer.register_forward_hook(after)


class MeasuredScore(_Measured, Score):
    """`Score`."""
