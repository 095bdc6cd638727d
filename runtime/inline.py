"""The same pipeline in this process, one item at a time: for notebooks, tests and comparison.

Same stages, same shapes, same threads, so the same bytes; no slots, sockets or processes.
"""

from __future__ import annotations

import os
import resource
import time
import traceback
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from math import inf
from types import TracebackType
from typing import Any

from ipc.messages import Heartbeat, ItemsDurable, ItemWritten
from ipc.records import ItemAttempt, JobUsage
from ipc.setup_messages import Finish, Finished
from runtime import dispatch
from runtime.account import item_failed, warn_of_failure
from runtime.crew import ME, M, Questions
from runtime.errors import (
    MAX_TRACEBACK_CHARS,
    ConfigError,
    RunpipeError,
    StageFailed,
    bounded,
    named,
)
from runtime.files import file_sum
from runtime.hosted import Hosted, pack_meta
from runtime.path import Identity
from runtime.setup import OpenedJob
from runtime.steps import Steps
from runtime.tally import Tally
from runtime.threads import threads
from runtime.usage import max_rss_bytes
from runtime.views import empty
from runtime.worker_plan import WorkerPlan
from stages.base import Item, Sink, Source, Stage, TensorSpec, UserError


class InlineCrew:
    """All workers of a plan, without processes."""

    shares_gpu_memory, is_whole = False, True

    def __init__(self) -> None:
        self._plans: dict[str, WorkerPlan] = {}
        self._steps: dict[str, Steps] = {}
        self._run: _Run | None = None
        self._is_draining = False

    def start(self, plans: Sequence[WorkerPlan]) -> None:
        """Make the workers."""
        for plan in plans:
            self._plans[plan.name] = plan
            self._steps[plan.name] = Steps(Identity(sender=plan.name, incarnation=0))

    def device(self, plan: WorkerPlan) -> str:
        """Return the device in this process's numbering: it sees all GPUs."""
        return plan.shown_device

    def ask(self, kind: type[M], questions: Questions, timeout_s: float = inf) -> dict[str, M]:
        """Let each worker do its step, however long that takes.

        Raises:
            ConfigError: it is the user's to mend.
            StageFailed: a stage raised.
        """
        answers: dict[str, M] = {}
        for worker, question in questions.items():
            steps = self._steps[worker]
            try:
                with threads(self._plans[worker].threads):
                    answer = steps.answer(question)
            except UserError as error:
                raise ConfigError(str(error)) from error
            except Exception as error:
                raise _failed(worker, steps.at, None, error) from error
            assert isinstance(answer, kind)
            answers[worker] = answer
        return answers

    def pids(self) -> dict[str, int]:
        """Return the process of each worker: this one."""
        return dict.fromkeys(self._plans, os.getpid())

    def begin(self) -> None:
        """A run begins: what the last one has cost is no part of it."""
        self._run, self._is_draining = None, False

    def beats(self) -> Mapping[str, Heartbeat]:
        """Return no heartbeat: nobody is there to beat."""
        return {}

    def usages(self) -> dict[str, JobUsage]:
        """Return what the last job has cost each worker."""
        return self._run.usages() if self._run else {}

    def drain(self) -> None:
        """End with the segment that has begun; from any thread."""
        self._is_draining = True

    def run(
        self,
        opened: OpenedJob,
        tally: Tally,
        _trace: object,
        durable: Collection[int] = (),
        _neighbours: object = None,
    ) -> list[str]:
        """Run all items but the durable ones, in order, as `Runner.run` says."""
        plan = opened.plan
        try:
            for steps in self._steps.values():
                steps.open_sinks(opened.facts)
        except UserError as error:
            raise ConfigError(str(error)) from error
        tally.start(unit=opened.unit, num_units=opened.num_units, num_items=plan.num_items)
        self._run = run = _Run(opened, self._steps, tally)
        with threads(plan.workers[0].threads):
            for index in (index for index in range(plan.num_items) if index not in durable):
                if self._is_draining and index % plan.items_per_segment == 0:
                    break
                run.run_item(index)
        if tally.items_durable < plan.num_items:
            raise KeyboardInterrupt
        if tally.items_failed == plan.num_items:
            return []
        sink = plan.workers_of(plan.path[-1])[0]
        finish = Finish(**ME, num_items=plan.num_items)
        finished = self.ask(Finished, {sink: finish})[sink]
        return list(finished.warnings)

    def close(self) -> None:
        """Close all stages."""
        for steps in self._steps.values():
            steps.close()
        self._steps.clear()

    def wake(self, why: KeyboardInterrupt | None = None) -> None:
        """Nobody waits here: this process's own signals interrupt it."""

    def wait(self) -> None:
        """Nobody is waited for."""

    def hurry(self) -> None:
        """Nothing to hurry: there is nobody to wait for."""

    def __enter__(self) -> InlineCrew:
        """Return the crew."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close all stages."""
        self.close()


@dataclass(slots=True)
class _Item:
    """One item on its way."""

    index: int
    meta: bytes = b""
    failed: str = ""
    written: set[str] = field(default_factory=set)  # tensors that are whole


class _Run:
    """One job: its tensors, made once and used for every item."""

    def __init__(self, opened: OpenedJob, steps: Mapping[str, Steps], tally: Tally) -> None:
        self._plan, self._tally = opened.plan, tally
        self._work_dir = opened.job.work_dir
        self._workers = {
            name: [(worker, steps[worker].hosted[name]) for worker in opened.plan.workers_of(name)]
            for name in opened.plan.path
        }
        libraries = {h.stage.library for pairs in self._workers.values() for _w, h in pairs}
        self._tensors = {
            place.name: empty(TensorSpec(place.shape, place.dtype), libraries)
            for pool in opened.plan.pools
            for place in pool.places
        }
        self._last_stage = {
            worker.name: max(worker.stages, key=opened.plan.path.index)
            for worker in opened.plan.workers
        }
        self._busy = dict.fromkeys(steps, 0.0)
        self._items = dict.fromkeys(steps, 0)
        self._usage = resource.getrusage(resource.RUSAGE_SELF)

    def run_item(self, index: int) -> None:
        """Take one item through all stages; a failed one only to the sink."""
        item = _Item(index)
        for name in self._plan.path:
            worker, hosted = self._choose(name, index)
            is_sink = isinstance(hosted.stage, Sink)
            if item.failed and not is_sink:
                continue
            began = time.monotonic()
            try:
                self._run(worker, hosted, item)
            except RunpipeError:
                raise  # of the journal, for one
            except Exception as error:
                failed = _failed(worker, name, index, error)
                if is_sink:
                    raise failed from error
                item.failed = f"{name}: {failed.error}"
                self._tally.failed(item_failed(failed))
                warn_of_failure(failed, self._tally)
            self._busy[worker] += time.monotonic() - began
            self._items[worker] += name == self._last_stage[worker]

    def _choose(self, stage: str, index: int) -> tuple[str, Hosted]:
        """Return the replica of a segment for the sink, elsewhere the first: results are equal."""
        pairs = self._workers[stage]
        if stage != self._plan.path[-1]:
            return pairs[0]
        workers = [worker for worker, _hosted in pairs]
        chosen = dispatch.of_segment(index, self._plan.items_per_segment, workers)
        return pairs[workers.index(chosen)]

    def _run(self, worker: str, hosted: Hosted, at: _Item) -> None:
        stage = hosted.stage
        names = [name for name in hosted.reads if name in at.written]
        inputs = {name: self._tensors[name][stage.library] for name in names}
        outputs = {name: self._tensors[name][stage.library] for name in hosted.writes}
        if isinstance(stage, Source):
            at.meta = pack_meta(stage.read(stage.keys()[at.index], outputs))
        else:
            meta = hosted.meta(at.meta) if at.meta else None
            item: Item[Any] = Item(index=at.index, attempt=0, meta=meta, failed=at.failed)
            if isinstance(stage, Stage):
                at.meta = pack_meta(stage.run(inputs, outputs, item))
            else:
                self._write(worker, stage, item, inputs)
        at.written.update(hosted.writes)

    def _write(
        self, worker: str, sink: Sink[Any, Any, Any], item: Item[Any], inputs: dict[str, object]
    ) -> None:
        written = ItemWritten(
            sender=worker,
            incarnation=0,
            item=item.index,
            attempt=0,
            units=sink.write(item, inputs, item.meta),
            failed=item.failed,
        )
        self._tally.wrote(written)
        self._commit(worker, sink)

    def _commit(self, worker: str, sink: Sink[Any, Any, Any]) -> None:
        for durable in sink.commit():
            self._tally.durable(
                ItemsDurable(
                    sender=worker,
                    incarnation=0,
                    items=tuple(ItemAttempt(item=item, attempt=0) for item in durable.items),
                    files=tuple(file_sum(self._work_dir, path) for path in durable.files),
                    counts=dict(durable.counts),
                )
            )

    def usages(self) -> dict[str, JobUsage]:
        """Return what each worker did; CPU time and memory are the process's, told of the first."""
        usage = resource.getrusage(resource.RUSAGE_SELF)
        user, system = usage.ru_utime - self._usage.ru_utime, usage.ru_stime - self._usage.ru_stime
        first, max_rss = self._plan.workers[0].name, max_rss_bytes()
        return {
            worker: JobUsage(
                items=self._items[worker],
                busy_s=self._busy[worker],
                cpu_user_s=user if worker == first else 0.0,
                cpu_system_s=system if worker == first else 0.0,
                max_rss_bytes=max_rss,
            )
            for worker in self._busy
        }


def _failed(worker: str, stage: str, item: int | None, error: Exception) -> StageFailed:
    reason = named(error)
    text = bounded("".join(traceback.format_exception(error)), MAX_TRACEBACK_CHARS)
    return StageFailed(worker, stage, item, reason, text)
