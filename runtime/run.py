"""One run: a job, its directory, its journal and its report."""

from __future__ import annotations

import json
import logging
import shutil
import signal
from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from msgspec.structs import replace as replace_fields

from ipc.errors import IpcError
from ipc.messages import ItemsDurable
from runtime.account import Account
from runtime.config import PipelineConfig
from runtime.earlier import JOURNAL, NOTHING, Earlier, fingerprint_of
from runtime.errors import (
    ConfigError,
    RunIncomplete,
    RunInterrupted,
    RunpipeError,
    Terminated,
)
from runtime.finished import note_output
from runtime.gpu_use import GpuUse
from runtime.host import Host
from runtime.journal import DoneItems, DurableRow, Journal
from runtime.live import CHECKING, LOADING, PREPARING, RUNNING, STARTING, STOPPING, Live
from runtime.neighbours import ALONE, Neighbours
from runtime.report import Report, ResumedReport, incomplete_text, status_of, write_report
from runtime.run_dir import WORKERS
from runtime.run_trace import RunTrace
from runtime.runner import Runner
from runtime.setup import OpenedJob, Setup
from runtime.stored import StoredJob, store_config, store_job, write_whole
from runtime.tally import Tally
from stages.base import Job

logger = logging.getLogger(__name__)

TRACE, REPORT = "trace.json", "report.json"


class Run:
    """One job on its way. Made for one `execute`."""

    def __init__(
        self,
        config: PipelineConfig,
        job: Job,
        *,
        is_new: bool = False,
        earlier: Earlier | None = None,
        neighbours: Neighbours = ALONE,
    ) -> None:
        """Take the run directory.

        Args:
            config: of the pipeline.
            job: its `work_dir` is the run directory, which exists.
            is_new: the directory was made for this run, and goes again if that cannot begin.
            earlier: the run that is resumed.
            neighbours: the sections around it.

        Raises:
            ConfigError: another run's journal is in the directory.
        """
        self._config, self._job, self._earlier = config, job, earlier
        self._dir, self._is_new, self._neighbours = Path(job.work_dir), is_new, neighbours
        self.tally = Tally(self._record)
        config_path = earlier.stored.config if earlier else str(config.path or "")
        self._account = Account(config, job, self.tally, config_path=config_path)
        self._trace = RunTrace(enabled=config.run.trace, began=neighbours.trace_began)
        self.live = Live(self.tally, self._account)
        self.has_report = False  # of this very run
        if earlier is None and (self._dir / JOURNAL).exists():
            raise ConfigError(
                f"{self._dir}: has another run in it; choose a new --run-dir, or --resume that one"
            )

    @property
    def folder(self) -> Path:
        """The run directory."""
        return self._dir

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
            report = self._write_report(setup, error)
        except KeyboardInterrupt as late:  # once more: it must be there
            error = error or self._interrupted(late)
            report = self._write_report(setup, error)
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
        except (OSError, MemoryError) as error:  # ours: what a stage raises is a StageFailed
            failed = RunpipeError(str(error) or "out of memory")
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
        self._store_job()
        done = self._look_back()
        with self._trace.step("start"):
            setup.describe()
        self._keep_pids(runner)
        with self._trace.step("open"):
            size = self._earlier.item_size if self._earlier else 0
            opened = setup.open(replace(self._job, size=size))
        self._account.broken = opened.broken
        if opened.broken:
            logger.warning("%s", opened.broken)  # now, and not only hours later
        self._warn(opened.plan.warnings)
        if not (self._earlier and self._earlier.is_whole(self._config, opened, done)):
            self._neighbours.may_load(opened, runner)
            opened = self._make_ready(setup, opened)
        done = self._begin_journal(opened, done, stack)
        self._account.gpu_use = GpuUse(w.gpu.uuid for w in opened.plan.workers if w.gpu)
        self.live.phase = RUNNING
        self.tally.on_restart = lambda: self._keep_pids(runner)
        try:
            with self._account.gpu_use:
                self._warn(runner.run(opened, self.tally, self._trace, done, self._neighbours))
        except KeyboardInterrupt:  # perhaps between a row of the journal and its being counted
            self.tally.recount(done, self._journal.written())
            raise
        if self.tally.items_failed < self.tally.num_items:
            note_output(Path(self._job.output), self._dir)

    def _make_ready(self, setup: Setup, opened: OpenedJob) -> OpenedJob:
        self.live.phase = LOADING
        with self._trace.step("load"):
            setup.load()
        self.live.phase = PREPARING
        with self._trace.step("prepare"):
            opened = setup.prepare(opened)
        self._warn(opened.plan.warnings)
        return opened

    def _store_job(self) -> None:
        """Write down what is asked before anything starts: whatever dies then can be resumed."""
        earlier = self._earlier
        num_runs = earlier.stored.num_runs + 1 if earlier else 1
        if earlier and earlier.journal:
            store_job(self._dir, replace_fields(earlier.stored, num_runs=num_runs))
            return
        stored = StoredJob(
            input=self._job.input,
            output=self._job.output,
            overwrite=self._job.overwrite,
            config=self._account.config_path,
            num_runs=num_runs,
        )
        store_config(self._dir, self._config)
        store_job(self._dir, stored)

    def _look_back(self) -> DoneItems:
        """Return what need not be done, and count it as done."""
        if self._earlier is None:
            return NOTHING
        self.live.phase = CHECKING
        with self._trace.step("check"):
            done = self._earlier.done()
        self._warn(self._earlier.warnings)
        self._count(done)
        self.live.phase = STARTING
        return done

    def _count(self, done: DoneItems) -> None:
        assert self._earlier is not None
        self.tally.resume(done)
        self._account.resumed = ResumedReport(items=len(done), runs=self._earlier.stored.num_runs)

    def _begin_journal(self, opened: OpenedJob, done: DoneItems, stack: ExitStack) -> DoneItems:
        """Have a journal from here on; return what is durable in it.

        Raises:
            ConfigError: the journal of the run that is resumed is of other items.
        """
        found = fingerprint_of(self._config, opened)
        self._account.fingerprint = {k: v for k, v in found.items() if k != "config"}
        earlier = self._earlier
        if earlier:
            is_same = earlier.check_work(found)
            self._warn(earlier.warnings)
            self._account.changed = tuple(earlier.changed)
            if is_same and earlier.journal:
                self._journal = earlier.journal
                return done
            self._count(NOTHING)
            self._store_job()
        self._journal = stack.enter_context(Journal.create(self._dir / JOURNAL, found))
        return NOTHING

    def _warn(self, warnings: Iterable[str]) -> None:
        """Tell of those that have not been told yet, now and in the report."""
        for warning in warnings:
            if warning not in self._account.warnings:
                logger.warning("%s", warning)
                self._account.warnings.append(warning)

    def _keep_pids(self, runner: Runner) -> None:
        """Say who is who, for whoever looks at the processes; anew when one of them is another."""
        self._account.pids = pids = dict(runner.pids())
        self._neighbours.tell_pids(pids)
        write_whole(self._dir / WORKERS, json.dumps(pids, indent=2).encode() + b"\n")

    def _keep_usages(self, runner: Runner) -> None:
        self._account.usages = runner.usages()

    def _write_trace(self, setup: Setup) -> None:
        """Write what there is of it; a run that cannot is none the worse."""
        pids = self._account.pids
        workers = [(w.name, w.shown_device, pids.get(w.name, 0)) for w in setup.workers]
        path, number = self._dir / TRACE, self._neighbours.number
        try:
            title = f"runpipe {self._config.pipeline}{self._neighbours.title}"
            self._warn(self._trace.write(path, title, workers, number=number))
        except (OSError, IpcError) as problem:
            why = getattr(problem, "strerror", None) or problem
            self._warn([f"{path}: cannot be written: {why}"])

    def _record(self, durable: ItemsDurable) -> None:
        items = tuple(one.item for one in durable.items)
        failed = ((item, self.tally.why_failed(item)) for item in items)
        self._journal.record(
            DurableRow(
                items=items,
                attempts=tuple(one.attempt for one in durable.items),
                files=durable.files,
                counts=durable.counts,
                units=sum(map(self.tally.units_of, items)),
                failed=tuple((item, why) for item, why in failed if why),
            )
        )

    def _write_report(self, setup: Setup, error: BaseException | None) -> Report:
        """Write and return the report; if it cannot be written, `error` is the worse news."""
        self.live.phase = STOPPING
        status = status_of(error)
        report = self._account.report(status, setup, error)
        path = self._dir / REPORT
        try:
            write_report(path, report)
            self.has_report = True
        except OSError as problem:
            if error is None:
                raise RunpipeError(f"{path}: cannot be written: {problem.strerror}") from problem
            logger.error("no report=%s: %s", path, problem.strerror)
        logger.info("run status=%s wall_s=%.1f report=%s", status, report.wall_s, self._dir)
        return report
