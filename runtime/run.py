"""One run: a job, its directory, its journal and its report."""

from __future__ import annotations

import json
import logging
import shutil
import signal
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Protocol

from ipc.errors import IpcError
from ipc.messages import Heartbeat, ItemsDurable
from ipc.records import JobUsage
from runtime.account import Account, weights_of
from runtime.atomic import write_atomically
from runtime.config import PipelineConfig, dump_config
from runtime.errors import (
    ConfigError,
    RunIncomplete,
    RunInterrupted,
    RunpipeError,
    Terminated,
)
from runtime.fingerprint import fingerprint
from runtime.gpu_use import GpuUse
from runtime.host import Host
from runtime.journal import DurableRow, Journal
from runtime.live import LOADING, PREPARING, RUNNING, STOPPING, Live
from runtime.report import Report, Status, incomplete_text, write_report
from runtime.run_trace import RunTrace
from runtime.setup import OpenedJob, Setup
from runtime.tally import Tally
from stages.base import Job

logger = logging.getLogger(__name__)

JOURNAL, TRACE = "journal.sqlite", "trace.json"


class Runner(Protocol):
    """Whoever takes the items through the stages."""

    def pids(self) -> dict[str, int]:
        """Return the process of each worker."""

    def begin(self) -> None:
        """A run begins: what earlier ones have cost is no part of it."""

    def beats(self) -> Mapping[str, Heartbeat]:
        """Return the last heartbeat of each worker, if they have hearts."""

    def usages(self) -> Mapping[str, JobUsage]:
        """Return what the last job has cost each worker, as far as that is known."""

    def run(self, opened: OpenedJob, tally: Tally, trace: RunTrace) -> list[str]:
        """Run all items; return what the sink warns of. Failed items are in `tally`."""


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
        self.tally = Tally(self._record)
        self._account = Account(config, job, self.tally)
        self._trace = RunTrace(enabled=config.run.trace)
        self.live = Live(self.tally, self._account)
        if (self._dir / JOURNAL).exists():
            raise ConfigError(f"{self._dir}: has another run in it; choose a new --run-dir")

    def execute(self, setup: Setup, host: Host, runner: Runner) -> Report:
        """Run the job to its end and return its report, which is in the run directory too.

        Raises:
            ConfigError: it cannot run as asked; a new run directory is gone again, unless items
                had begun.
            RunIncomplete: it is done but for what the report names.
            StageFailed, WorkerDied, WorkerHung: it failed; the report says how far it was.
            RunpipeError: likewise: a file of the run directory cannot be written.
            RunInterrupted: Ctrl-C or SIGTERM; likewise.
        """
        self._account.host = host
        self.live.show(setup, runner)
        error = self._outcome(setup, runner)
        if isinstance(error, ConfigError) and not self.tally.num_items:
            self.forget()
            raise error
        try:
            report = self._write_report(_status(error), setup, error)
        except KeyboardInterrupt as late:  # once more: it must be there
            error = error or self._interrupted(late)
            report = self._write_report(_status(error), setup, error)
        if error:
            raise error
        return report

    def _outcome(self, setup: Setup, runner: Runner) -> BaseException | None:
        """Run the job, and return why it is not whole."""
        try:
            with ExitStack() as stack:
                stack.callback(self._keep_usages, runner)
                stack.enter_context(self._trace)
                stack.callback(self._write_trace, setup)
                runner.begin()
                self._go(setup, runner, stack)
        except OSError as error:  # ours: what a stage raises is a StageFailed
            failed = RunpipeError(str(error))
            failed.__cause__ = error
            return failed
        except KeyboardInterrupt as error:
            return self._interrupted(error)
        except Exception as error:  # noqa: BLE001 - raised again, once the report is written
            return error
        if self.tally.items_failed or self._account.broken:
            report = self._account.report("failed", setup, RunIncomplete())
            return RunIncomplete(incomplete_text(report))
        return None

    def _interrupted(self, error: KeyboardInterrupt) -> RunInterrupted:
        signum = signal.SIGTERM if isinstance(error, Terminated) else signal.SIGINT
        return RunInterrupted(
            signum, num_done=self.tally.items_done, num_items=self.tally.num_items
        )

    def forget(self) -> None:
        """Remove the run directory, if it was made for this run, which never began."""
        if self._is_new:
            shutil.rmtree(self._dir, ignore_errors=True)

    def _go(self, setup: Setup, runner: Runner, stack: ExitStack) -> None:
        with self._trace.step("start"):
            setup.describe()
        self._account.pids = runner.pids()
        pids = json.dumps(self._account.pids, indent=2) + "\n"
        write_atomically(self._dir / "workers.json", pids.encode())
        with self._trace.step("open"):
            opened = setup.open(self._job)
        self._account.broken = opened.broken
        if opened.broken:
            logger.warning("%s", opened.broken)  # now, and not only hours later
        self._warn(opened.plan.warnings)
        self.live.phase = LOADING
        with self._trace.step("load"):
            setup.load()
        self.live.phase = PREPARING
        with self._trace.step("prepare"):
            opened = setup.prepare(opened)
        self._warn(opened.plan.warnings)
        config_text = dump_config(self._config)
        write_atomically(self._dir / "config.yaml", config_text.encode())
        self._account.fingerprint = fingerprint(
            config_text=config_text,
            inputs=[self._job.input, *weights_of(self._config)],
            seed=self._job.seed,
            threads={worker.name: worker.threads for worker in opened.plan.workers},
            shapes={
                f"{pool.owner.partition('/')[0]}.{place.name}": place.shape
                for pool in opened.plan.pools
                for place in pool.places
            },
        )
        self._journal = stack.enter_context(
            Journal.create(self._dir / JOURNAL, self._account.fingerprint)
        )
        self._account.gpu_use = GpuUse(w.gpu.uuid for w in opened.plan.workers if w.gpu)
        self.live.phase = RUNNING
        with self._account.gpu_use:
            self._warn(runner.run(opened, self.tally, self._trace))

    def _warn(self, warnings: Iterable[str]) -> None:
        """Tell of those that have not been told yet, now and in the report."""
        for warning in warnings:
            if warning not in self._account.warnings:
                logger.warning("%s", warning)
                self._account.warnings.append(warning)

    def _keep_usages(self, runner: Runner) -> None:
        self._account.usages = runner.usages()

    def _write_trace(self, setup: Setup) -> None:
        """Write what there is of it; a run that cannot is none the worse."""
        pids = self._account.pids
        workers = [(w.name, w.shown_device, pids.get(w.name, 0)) for w in setup.workers]
        path = self._dir / TRACE
        try:
            self._warn(self._trace.write(path, f"runpipe {self._config.pipeline}", workers))
        except (OSError, IpcError) as problem:
            why = getattr(problem, "strerror", None) or problem
            self._warn([f"{path}: cannot be written: {why}"])

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
        self.live.phase = STOPPING
        report = self._account.report(status, setup, error)
        path = self._dir / "report.json"
        try:
            write_report(path, report)
        except OSError as problem:
            if error is None:
                raise RunpipeError(f"{path}: cannot be written: {problem.strerror}") from problem
            logger.error("no report=%s: %s", path, problem.strerror)
        logger.info("run status=%s wall_s=%.1f report=%s", status, report.wall_s, self._dir)
        return report


def _status(error: BaseException | None) -> Status:
    if error is None:
        return "done"
    return "interrupted" if isinstance(error, RunInterrupted) else "failed"
