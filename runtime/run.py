"""One run: a job, its directory, its journal and its report."""

from __future__ import annotations

import json
import logging
import shutil
import signal
import time
from collections.abc import Mapping
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

from ipc.messages import ItemsDurable, JobClosed
from runtime.config import PipelineConfig, dump_config
from runtime.errors import ConfigError, RunInterrupted, RunpipeError, StageFailed, Terminated
from runtime.fingerprint import fingerprint, text_sha256
from runtime.host import Host
from runtime.journal import DurableRow, Journal
from runtime.report import (
    ConfigReport,
    Failure,
    ItemCounts,
    LinkReport,
    Report,
    Status,
    UnitCounts,
    WorkerReport,
    write_report,
)
from runtime.setup import OpenedJob, Setup
from runtime.tally import Tally
from stages.base import Job

logger = logging.getLogger(__name__)

JOURNAL = "journal.sqlite"


class Runner(Protocol):
    """Whoever takes the items through the stages."""

    def pids(self) -> dict[str, int]:
        """Return the process of each worker."""

    def run(self, opened: OpenedJob, tally: Tally) -> tuple[dict[str, JobClosed], list[str]]:
        """Run all items; return what each worker did, and what the sink warns of."""


class Run:
    """One job on its way. Made for one `execute`."""

    def __init__(self, config: PipelineConfig, job: Job, *, is_new: bool) -> None:
        """Take the run directory.

        Args:
            config: of the pipeline.
            job: its `work_dir` is the run directory, which exists.
            is_new: the directory was made for this run, and goes again if that cannot begin.

        Raises:
            ConfigError: another run's journal is in the directory.
        """
        self._config, self._job = config, job
        self._dir, self._is_new = Path(job.work_dir), is_new
        self._began_at, self._began = datetime.now(UTC), time.monotonic()
        self._opened: OpenedJob | None = None
        self._closed: Mapping[str, JobClosed] = {}
        self._pids: Mapping[str, int] = {}
        self._fingerprint: dict[str, object] = {}
        self._warnings: list[str] = []
        self._host: Host | None = None
        self.tally = Tally(self._record)
        if (self._dir / JOURNAL).exists():
            raise ConfigError(f"{self._dir}: has another run in it; choose a new --run-dir")

    def execute(self, setup: Setup, host: Host, runner: Runner) -> Report:
        """Run the job to its end and return its report, which is in the run directory too.

        Raises:
            ConfigError: it cannot run as asked; a new run directory is gone again, unless items
                had begun.
            StageFailed, WorkerDied, WorkerHung: it failed; the report says how far it was.
            RunpipeError: likewise: a file of the run directory cannot be written.
            RunInterrupted: Ctrl-C or SIGTERM; likewise.
        """
        self._host = host
        try:
            with ExitStack() as stack:
                self._go(setup, runner, stack)
            return self._write_report("done", setup, None)
        except ConfigError as error:
            if self.tally.num_items:  # what is durable must stay
                self._write_report("failed", setup, error)
            else:
                self.forget()
            raise
        except OSError as error:  # ours: what a stage raises is a StageFailed
            failed = RunpipeError(str(error))
            self._write_report("failed", setup, failed)
            raise failed from error
        except KeyboardInterrupt as error:
            signum = signal.SIGTERM if isinstance(error, Terminated) else signal.SIGINT
            interrupted = RunInterrupted(
                signum, num_done=self.tally.items_durable, num_items=self.tally.num_items
            )
            self._write_report("interrupted", setup, interrupted)
            raise interrupted from None
        except Exception as error:
            self._write_report("failed", setup, error)
            raise

    def forget(self) -> None:
        """Remove the run directory, if it was made for this run, which never began."""
        if self._is_new:
            shutil.rmtree(self._dir, ignore_errors=True)

    def _go(self, setup: Setup, runner: Runner, stack: ExitStack) -> None:
        setup.describe()
        self._pids = runner.pids()
        (self._dir / "workers.json").write_text(json.dumps(self._pids, indent=2) + "\n")
        self._opened = setup.open(self._job)
        setup.load()
        self._opened = opened = setup.prepare(self._opened)
        self._warnings += opened.plan.warnings
        config_text = dump_config(self._config)
        (self._dir / "config.yaml").write_text(config_text)
        self._fingerprint = fingerprint(
            config_text=config_text,
            inputs=[self._job.input, *_weights(self._config)],
            seed=self._job.seed,
            threads={worker.name: worker.threads for worker in opened.plan.workers},
            shapes={
                f"{pool.owner.partition('/')[0]}.{place.name}": place.shape
                for pool in opened.plan.pools
                for place in pool.places
            },
        )
        self._journal = stack.enter_context(Journal.create(self._dir / JOURNAL, self._fingerprint))
        self._closed, warnings = runner.run(opened, self.tally)
        self._warnings += warnings

    def _record(self, durable: ItemsDurable) -> None:
        self._journal.record(
            DurableRow(
                items=tuple(one.item for one in durable.items),
                attempts=tuple(one.attempt for one in durable.items),
                files=durable.files,
                counts=durable.counts,
            )
        )

    def _write_report(self, status: Status, setup: Setup, error: BaseException | None) -> Report:
        """Write and return the report; if it cannot be written, `error` is the worse news."""
        report = self._report(status, setup, error)
        path = self._dir / "report.json"
        try:
            write_report(path, report)
        except OSError as problem:
            if error is None:
                raise RunpipeError(f"{path}: cannot be written: {problem.strerror}") from problem
            logger.error("no report=%s: %s", path, problem.strerror)
        logger.info("run status=%s wall_s=%.1f report=%s", status, report.wall_s, self._dir)
        return report

    def _report(self, status: Status, setup: Setup, error: BaseException | None) -> Report:
        tally, ended = self.tally, time.monotonic()
        items_began = tally.began if tally.num_items else ended
        failures = (_failure(error),) if error else ()
        return Report(
            status=status,
            pipeline=self._config.pipeline,
            items=ItemCounts(
                done=tally.items_durable,
                failed=sum(failure.item is not None for failure in failures),
            ),
            units=UnitCounts(name=tally.unit, done=tally.units_durable),
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
            warnings=tuple(self._warnings),
            failures=failures,
            workers=self._workers(setup),
            links=self._links(),
            fingerprint=self._fingerprint,
            config=ConfigReport(
                path=str(self._config.path or ""), sha256=text_sha256(dump_config(self._config))
            ),
            versions=setup.versions,
            host=self._host,
        )

    def _workers(self, setup: Setup) -> tuple[WorkerReport, ...]:
        reports = []
        for plan in setup.workers:
            closed = self._closed.get(plan.name)
            report = WorkerReport(
                name=plan.name,
                stages=plan.stages,
                device=plan.shown_device,
                pid=self._pids.get(plan.name, 0),
                items=closed.items if closed else 0,
                busy_s=closed.busy_s if closed else 0.0,
                cpu_user_s=closed.cpu_user_s if closed else 0.0,
                cpu_system_s=closed.cpu_system_s if closed else 0.0,
                max_rss_bytes=closed.max_rss_bytes if closed else 0,
                gpu_peak_bytes=closed.gpu_peak_bytes if closed else 0,
            )
            reports.append(report)
        return tuple(reports)

    def _links(self) -> tuple[LinkReport, ...]:
        return tuple(
            LinkReport(
                sender=link.peer,
                receiver=receiver,
                transport=link.transport,
                items=link.items,
                bytes=link.bytes,
                wait_s=link.wait_s,
            )
            for receiver, closed in self._closed.items()
            for link in closed.links
            if link.peer in self._pids  # and not the supervisor, which admits items
        )


def weights_notes(config: PipelineConfig) -> list[str]:
    """Return what a user must know of the weights: random ones show nothing of what EDEN can do."""
    return [
        f"{weights}: random weights, untrained: what they compute is noise"
        for weights in _weights(config)
        if weights.startswith("random:")
    ]


def _weights(config: PipelineConfig) -> list[str]:
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
