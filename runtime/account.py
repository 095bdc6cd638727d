"""What a run has to say of itself at its end, whole or not: the report, from what is known."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime

from ipc.messages import ItemFailed
from ipc.records import JobUsage
from runtime.config import PipelineConfig, dump_config
from runtime.errors import RunIncomplete, StageFailed
from runtime.fingerprint import text_sha256
from runtime.gpu_use import GpuUse
from runtime.host import Host
from runtime.report import (
    ConfigReport,
    Failure,
    ItemCounts,
    LinkReport,
    Report,
    ResumedReport,
    Status,
    UnitCounts,
    WorkerReport,
)
from runtime.setup import Setup
from runtime.tally import Tally
from stages.base import Job

logger = logging.getLogger(__name__)

MAX_WARNINGS = 10  # of failed items, one by one


class Account:
    """Filled by the run as it learns; `report` may be asked at any time."""

    def __init__(self, config: PipelineConfig, job: Job, tally: Tally, *, config_path: str) -> None:
        self._config, self._job, self._tally = config, job, tally
        self.config_path = config_path
        self._began_at, self._began = datetime.now(UTC), time.monotonic()
        self.host: Host | None = None
        self.pids: Mapping[str, int] = {}
        self.usages: Mapping[str, JobUsage] = {}
        self.gpu_use = GpuUse(())
        self.fingerprint: dict[str, object] = {}
        self.changed: tuple[str, ...] = ()  # of it
        self.resumed: ResumedReport | None = None
        self.warnings: list[str] = []
        self.broken = ""  # why the input is not whole

    def report(self, status: Status, setup: Setup, error: BaseException | None) -> Report:
        """Return what there is to say; `error` is why the run is not whole, if it is one."""
        tally, ended = self._tally, time.monotonic()
        items_began = tally.began if tally.num_items else ended
        failures = tuple(self._failures(error))
        is_complete = error is None or isinstance(error, RunIncomplete)
        return Report(
            status=status,
            pipeline=self._config.pipeline,
            items=ItemCounts(
                done=tally.items_done,
                failed=len(tally.failed_items | _items_of(error)),
                replayed=tally.items_replayed,
            ),
            units=UnitCounts(
                name=tally.unit,
                done=tally.units_durable,
                failed=tally.num_units - tally.units_durable if is_complete else 0,
            ),
            wall_s=ended - self._began,
            load_s=items_began - self._began,
            run_s=ended - items_began,
            warm_units_per_s=tally.warm_units_per_s,
            started_at=_iso(self._began_at),
            ended_at=_iso(datetime.now(UTC)),
            input=self._job.input,
            output=self._job.output,
            counts=dict(tally.counts),
            weights=tuple(weights_notes(self._config)),
            warnings=tuple(self.warnings),
            failures=failures,
            hangs=tuple(tally.hangs),
            workers=tuple(self._workers(setup)),
            links=tuple(self._links()),
            fingerprint=self.fingerprint,
            changed=self.changed,
            resumed=self.resumed,
            config=ConfigReport(
                path=self.config_path, sha256=text_sha256(dump_config(self._config))
            ),
            versions=setup.versions,
            host=self.host,
        )

    def _failures(self, error: BaseException | None) -> Iterator[Failure]:
        if self.broken:
            yield Failure(reason=self.broken)
        told = self._tally.failures
        for one in told:
            yield _failure(stage_failed(one))
        if error and not isinstance(error, RunIncomplete):
            yield _failure(error)
        if (more := self._tally.items_failed - len(told)) > 0:
            yield Failure(reason=f"{more} more items failed; the workers' logs say why")

    def _workers(self, setup: Setup) -> Iterator[WorkerReport]:
        for plan in setup.workers:
            usage = self.usages.get(plan.name, JobUsage())
            yield WorkerReport(
                name=plan.name,
                stages=plan.stages,
                device=plan.shown_device,
                pid=self.pids.get(plan.name, 0),
                restarts=self._tally.restarts[plan.name],
                items=usage.items,
                busy_s=usage.busy_s,
                cpu_user_s=usage.cpu_user_s,
                cpu_system_s=usage.cpu_system_s,
                max_rss_bytes=usage.max_rss_bytes,
                gpu_peak_bytes=usage.gpu_peak_bytes,
                gpu_utilization=self.gpu_use.mean(plan.gpu.uuid) if plan.gpu else None,
            )

    def _links(self) -> Iterator[LinkReport]:
        for receiver, usage in self.usages.items():
            for link in usage.links:
                if link.peer in self.pids:  # and not the supervisor, which admits items
                    yield LinkReport(
                        sender=link.peer,
                        receiver=receiver,
                        transport=link.transport,
                        items=link.items,
                        bytes=link.bytes,
                        wait_s=link.wait_s,
                    )


def weights_notes(config: PipelineConfig) -> list[str]:
    """Return what a user must know of the weights: random ones show nothing of what EDEN can do."""
    return [
        f"{weights}: random weights, untrained: what they compute is noise"
        for weights in weights_of(config)
        if weights.startswith("random:")
    ]


def weights_of(config: PipelineConfig) -> list[str]:
    """Return the checkpoints, or what stands for them, that a configuration names."""
    named = [config.model, *(stage.options for stage in config.stages.values())]
    return sorted({str(keywords["weights"]) for keywords in named if "weights" in keywords})


def _failure(error: BaseException) -> Failure:
    if isinstance(error, StageFailed):
        return Failure(
            reason=str(error),
            item=error.item,
            stage=error.stage,
            worker=error.worker,
            traceback=error.traceback,
        )
    return Failure(reason=str(error), worker=getattr(error, "worker", ""))


def _iso(moment: datetime) -> str:
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _items_of(error: BaseException | None) -> set[int]:
    item = error.item if isinstance(error, StageFailed) else None
    return set() if item is None else {item}


def warn_of_failure(failed: StageFailed, tally: Tally) -> None:
    """Tell of an item that is left out; after many of them the report tells of the rest."""
    if tally.items_failed <= MAX_WARNINGS:
        logger.warning("%s; it is left out", failed)
    elif tally.items_failed == MAX_WARNINGS + 1:
        logger.warning("more items fail, which the report tells of")


def stage_failed(message: ItemFailed) -> StageFailed:
    """Return the exception that says what the message says."""
    return StageFailed(
        message.sender, message.stage, message.item, message.error, message.traceback
    )


def item_failed(failed: StageFailed) -> ItemFailed:
    """Return the message that says what the exception says, of a failed item."""
    assert failed.item is not None
    return ItemFailed(
        sender=failed.worker,
        incarnation=0,
        stage=failed.stage,
        item=failed.item,
        attempt=0,
        error=failed.error,
        traceback=failed.traceback,
    )
