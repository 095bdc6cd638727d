"""The Python API: `with Pipeline(load_config("demo.yaml")) as p: p.run(input=..., output=...)`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import TracebackType

from runtime.config import PipelineConfig
from runtime.earlier import Earlier, basis_of, earlier_run
from runtime.errors import ConfigError, RunIncomplete
from runtime.finished import finished_report
from runtime.fleet import Fleet
from runtime.host import probe_host
from runtime.inline import InlineCrew
from runtime.job_paths import check_paths
from runtime.live import RUNNING, Live
from runtime.neighbours import ALONE, Neighbours
from runtime.report import Report
from runtime.run import Run
from runtime.run_dir import make_run_dir, wait_for_orphans
from runtime.run_logs import RunLogs
from runtime.runner import Runner
from runtime.setup import OpenedJob, Setup
from runtime.socket_folder import remove_left_folders
from runtime.stored import JOB
from runtime.supervisor import Supervisor
from runtime.terminal import Terminal
from stages.base import Job


class Pipeline:
    """A configured pipeline. Workers start with the first run and stay for the next ones.

    A run that fails stops them, and the next run starts new ones. Use it in a with-block: leaving
    that stops every process it started. Not thread-safe.
    """

    def __init__(
        self,
        config: PipelineConfig,
        *,
        inline: bool = False,
        verbosity: int = 0,
        terminal: Terminal | None = None,
        neighbours: Neighbours = ALONE,
    ) -> None:
        """Nothing starts yet.

        Args:
            config: from `load_config` or `parse_config`.
            inline: run all stages in this process, one item at a time, with the same result.
            verbosity: of the logs: 0 warns on stderr, 1 tells of the run, 2 of each item.
            terminal: where log lines go; by default each run writes to stderr itself.
            neighbours: the sections around this one, of whose run this is a part.
        """
        self.config = config
        self.run_dir: Path | None = None  # of the last run
        self._run: Run | None = None  # likewise
        self._inline, self._verbosity, self._neighbours = inline, verbosity, neighbours
        self._logs = RunLogs(verbosity, terminal, enabled=not neighbours.run_dir)
        self._ends_with: KeyboardInterrupt | None = None
        self._host = probe_host()
        self._crew: Fleet | InlineCrew | None = None
        self._runner: Runner | None = None
        self._setup: Setup | None = None

    def run(
        self,
        *,
        input: str | Path | None = None,  # noqa: A002 - the word people use
        output: str | Path | None = None,
        overwrite: bool = False,
        run_dir: str | Path | None = None,
        on_start: Callable[[Live], None] = lambda _live: None,
    ) -> Report:
        """Run one job to its end, and return its report, which is in `run_dir` too.

        Args:
            input: instead of the configuration's.
            output: instead of the configuration's; relative to here.
            overwrite: replace an output that exists.
            run_dir: for journal, report, logs and unfinished segments; by default a new folder in
                `runs/`.
            on_start: is given the run as it may be looked at, from any thread, before it begins.

        Raises:
            ConfigError: it cannot run as asked, and has not begun.
            RunIncomplete: items failed, or the input was not whole; the rest is in `output`.
            StageFailed, WorkerDied, WorkerHung: it failed; `report.json` says how far it was.
            RunInterrupted: Ctrl-C or SIGTERM; likewise.
        """
        job = self._job(input, output, overwrite=overwrite)
        check_paths(job)
        wanted = Path(run_dir) if run_dir else None
        folder, is_new = make_run_dir(wanted, pipeline=self.config.pipeline)
        self.run_dir, self._run = folder, None
        job = self._in(folder, job)
        run = Run(self.config, job, is_new=is_new, neighbours=self._neighbours)
        on_start(run.live)
        with self._logs.writing_in(folder):
            return self._execute(run)

    def resume(
        self,
        run_dir: str | Path,
        *,
        input: str | Path | None = None,  # noqa: A002 - the word people use
        output: str | Path | None = None,
        overwrite: bool = False,
        force: bool = False,
        on_start: Callable[[Live], None] = lambda _live: None,
    ) -> Report:
        """Go on with a run that ended early, however it did; what is durable is not done again.

        The bytes are those of a run that nothing befell. Of a run that is done already the report
        is returned, and nothing is touched. For the configuration see `stored.load_run_config`.

        Args:
            run_dir: of that run.
            input: if it is given, it must be that of the run.
            output: likewise.
            overwrite: replace an output that has appeared meanwhile.
            force: go on although configuration, input or code have changed, and begin anew where
                the journal is damaged, or where what is durable does not fit any more.
            on_start: as in `run`.

        Raises:
            ConfigError: it would not be the same run, or there is none.
            JournalError: its journal is damaged, or in use.
            RunpipeError: as `run`.
        """
        folder = Path(run_dir).absolute()
        self._run = None
        if not folder.is_dir():
            raise ConfigError(f"{folder}: there is no such run directory")
        self.run_dir = folder
        with self._logs.writing_in(folder), earlier_run(folder, is_forced=force) as earlier:
            stored = earlier.stored
            job = self._job(
                input or stored.input,
                output or stored.output,
                overwrite=overwrite or stored.overwrite,
            )
            return self._go_on(self._in(folder, job), earlier, on_start)

    def _go_on(self, job: Job, earlier: Earlier, on_start: Callable[[Live], None]) -> Report:
        folder = Path(job.work_dir)
        earlier.check_asked(self.config, job)
        remove_left_folders()  # there may be no fleet that does it
        if done := finished_report(earlier, folder, self.config):
            return done
        check_paths(job)
        earlier.check_files(basis_of(self.config, job))
        wait_for_orphans(folder)
        run = Run(self.config, job, earlier=earlier, neighbours=self._neighbours)
        on_start(run.live)
        return self._execute(run)

    @property
    def has_report(self) -> bool:
        """Whether the last run got so far that it wrote a report."""
        return self._run is not None and self._run.has_report

    @property
    def has_begun(self) -> bool:
        """Whether the last run got so far that it can be resumed, however it ended."""
        return self._run is not None and (self._run.folder / JOB).exists()

    def drain(self) -> bool:
        """Let the run end once all that has begun is durable; it can be resumed then.

        For a signal handler, or any thread.

        Returns:
            Whether items are under way; else there is nothing to wait for.
        """
        run, runner = self._run, self._runner
        if run is None or runner is None or run.live.phase != RUNNING:
            return False
        runner.drain()
        return True

    def interrupt(self, why: KeyboardInterrupt) -> None:
        """Have the run that goes on in another thread raise `why` there, soon."""
        self._ends_with = why
        if (crew := self._crew) is not None:
            crew.wake(why)

    def _execute(self, run: Run) -> Report:
        self._run = run
        with self._stopping_on_failure():
            setup, runner = self._start(run.folder, opens_gpus=True)
            if self._crew and self._ends_with:  # before there was a crew
                self._crew.wake(self._ends_with)
            return run.execute(setup, self._host, runner)

    def plan(
        self,
        *,
        run_dir: str | Path,
        input: str | Path | None = None,  # noqa: A002 - the word people use
        output: str | Path | None = None,
    ) -> OpenedJob:
        """Open the job's input and return how it would run. Loads nothing, opens no GPU.

        Args:
            run_dir: for the workers' logs.
            input: instead of the configuration's.
            output: instead of the configuration's.

        Raises:
            ConfigError: it cannot run as asked.
        """
        folder = Path(run_dir).absolute()
        job = self._job(input, output, overwrite=True)
        if not self._neighbours.run_dir:  # else its folder is not there yet
            check_paths(job)
        with self._stopping_on_failure():
            setup, _runner = self._start(folder, opens_gpus=False)
            setup.describe()
            return setup.open(self._in(folder, job))

    def plans(
        self,
        *,
        run_dir: str | Path,
        input: str | Path | None = None,  # noqa: A002 - the word people use
        output: str | Path | None = None,
    ) -> dict[str, OpenedJob]:
        """Return what `plan` does, under no name: this pipeline is one section."""
        return {"": self.plan(run_dir=run_dir, input=input, output=output)}

    @contextmanager
    def _stopping_on_failure(self) -> Iterator[None]:
        try:
            yield
        except RunIncomplete:
            raise  # the workers went through all of it
        except BaseException:  # whatever it was, workers and items are in no known state
            if self._crew is not None:
                self._crew.hurry()
            self.close()
            raise

    def _job(self, source: str | Path | None, output: str | Path | None, *, overwrite: bool) -> Job:
        return Job(
            input=str(Path(source).absolute()) if source else self.config.input or "",
            output=str(Path(output).absolute()) if output else self.config.output or "",
            work_dir="",
            overwrite=overwrite,
            seed=self.config.run.seed,
        )

    def _in(self, folder: Path, job: Job) -> Job:
        around = self._neighbours
        run_dir = around.run_dir or str(folder)
        return replace(job, work_dir=str(folder), run_dir=run_dir, earlier=around.earlier)

    def _start(self, run_dir: Path, *, opens_gpus: bool) -> tuple[Setup, Runner]:
        if self._crew is not None and not self._crew.is_whole:
            self.close()  # one died when its work was done
        if self._setup is None or self._runner is None:
            if self._inline:
                self._crew = self._runner = InlineCrew()
            else:
                self._crew = Fleet(
                    run_dir=run_dir,
                    hang_s=self.config.run.hang_s,
                    item_limit_s=self.config.run.item_limit_s,
                    stop_grace_s=self.config.run.stop_grace_s,
                    verbosity=self._verbosity,
                )
                self._crew.opens_gpus = opens_gpus
                self._runner = Supervisor(self.config, self._crew)
            self._setup = Setup(self.config, self._host, self._crew)
        return self._setup, self._runner

    def close(self) -> None:
        """Stop all workers. Safe to call twice."""
        crew, self._crew, self._setup, self._runner = self._crew, None, None, None
        if crew is not None:
            with self._logs.last(self.run_dir):
                crew.close()

    def __enter__(self) -> Pipeline:
        """Return the pipeline."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Stop all workers."""
        self.close()
