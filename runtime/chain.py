"""A pipeline of several sections: each runs as a pipeline of its own, at the same time.

They share a run directory, in which each has its own with journal and report, and an output folder.
A section's source is held back until what it reads is durable (`runtime/neighbours.py`).
"""

from __future__ import annotations

import logging
import shutil
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import TracebackType

from runtime.config import PipelineConfig
from runtime.errors import ConfigError, RunpipeError
from runtime.job_paths import check_folders
from runtime.joined import JoinedLive, JoinedPids, join_traces, joined_report
from runtime.neighbours import Leading, Neighbours
from runtime.page import make_page
from runtime.pipeline import Pipeline
from runtime.report import Report, load_report, write_report
from runtime.residency import LoadOrder, NotResident
from runtime.run_dir import make_run_dir
from runtime.run_logs import RunLogs
from runtime.runner import Runner
from runtime.section_threads import Asked, Section, SectionThreads, reports_of, worst
from runtime.sections import has_other_cut, output_of, section_configs
from runtime.setup import OpenedJob
from runtime.stored import JOB, load_job, store_config, store_job
from runtime.terminal import Terminal

logger = logging.getLogger(__name__)

REPORT = "report.json"


class Chain:
    """A configured pipeline of sections. To be used as `Pipeline` is; not thread-safe."""

    def __init__(
        self,
        config: PipelineConfig,
        *,
        inline: bool = False,
        verbosity: int = 0,
        terminal: Terminal | None = None,
    ) -> None:
        """Nothing starts yet; the arguments are those of `Pipeline`.

        Raises:
            ConfigError: `run.only` names no section.
        """
        self.config = config
        self.run_dir: Path | None = None  # of the last run
        self.has_report = False  # of this very run, which was not done already
        section_configs(config, resident=True)  # which refuses what it cannot cut
        self._inline, self._verbosity = inline, verbosity
        self._logs = RunLogs(verbosity, terminal)
        self._sections: list[Section] = []
        self._order, self._live = LoadOrder((), "auto"), JoinedLive(())

    @property
    def has_begun(self) -> bool:
        """Whether the last run got so far that it can be resumed, however it ended."""
        return self.run_dir is not None and (self.run_dir / JOB).exists()

    # --- one run ----------------------------------------------------------------------------------

    def run(
        self,
        *,
        input: str | Path | None = None,  # noqa: A002 - the word people use
        output: str | Path | None = None,
        overwrite: bool = False,
        run_dir: str | Path | None = None,
        on_start: Callable[[JoinedLive], None] = lambda _live: None,
    ) -> Report:
        """Run one job through all sections, and return the report of the whole; see `Pipeline.run`.

        Raises:
            ConfigError: it cannot run as asked, and has not begun.
            RunpipeError: as `Pipeline.run`.
        """
        asked = self._asked(input, output, overwrite=overwrite)
        check_folders(asked.input, asked.output)
        wanted = Path(run_dir) if run_dir else None
        folder, is_new = make_run_dir(wanted, pipeline=self.config.pipeline)
        if not is_new and (folder / JOB).exists():
            raise ConfigError(f"{folder}: has another run in it; choose a new --run-dir")
        self.run_dir, self.has_report = folder, False
        try:
            with self._logs.writing_in(folder):
                self._store(asked, num_runs=1)
                return self._go(asked, on_start)
        except ConfigError:
            if is_new and not self._live.has_items:
                self.close()
                shutil.rmtree(folder, ignore_errors=True)  # it has not begun
                with suppress(OSError):  # others have put something there
                    asked.output.rmdir()
            raise

    def resume(
        self,
        run_dir: str | Path,
        *,
        input: str | Path | None = None,  # noqa: A002 - the word people use
        output: str | Path | None = None,
        overwrite: bool = False,
        force: bool = False,
        on_start: Callable[[JoinedLive], None] = lambda _live: None,
    ) -> Report:
        """Go on with a run that ended early, each section where it was; see `Pipeline.resume`.

        Raises:
            ConfigError: it would not be the same run, or there is none.
            RunpipeError: as `run`.
        """
        folder = Path(run_dir).absolute()
        stored = load_job(folder)
        self.run_dir, self.has_report = folder, False
        asked = self._asked(
            input or stored.input, output or stored.output, overwrite=overwrite or stored.overwrite
        )
        asked = replace(asked, force=force)
        with self._logs.writing_in(folder):
            self._store(asked, num_runs=stored.num_runs + 1)
            return self._go(asked, on_start)

    def _asked(
        self, source: str | Path | None, output: str | Path | None, *, overwrite: bool
    ) -> Asked:
        wanted = str(output) if output else self.config.output
        if not wanted:
            raise ConfigError("no output: say --output FOLDER, or `output:` in the configuration")
        return Asked(
            input=str(Path(source).absolute()) if source else self.config.input or "",
            output=Path(wanted).absolute(),
            overwrite=overwrite,
        )

    def _store(self, asked: Asked, *, num_runs: int) -> None:
        assert self.run_dir is not None
        if num_runs == 1:
            store_config(self.run_dir, self.config)
        store_job(self.run_dir, asked.stored(str(self.config.path or ""), num_runs))

    def _go(self, asked: Asked, on_start: Callable[[JoinedLive], None]) -> Report:
        assert self.run_dir is not None
        asked.output.mkdir(exist_ok=True)
        if not self._starts_resident(self.run_dir):
            return self._go_cut(asked, on_start, resident=False)
        try:
            return self._go_cut(asked, on_start, resident=True)
        except NotResident as error:
            logger.info("another cut, since %s", error)
            return self._go_cut(asked, on_start, resident=False)

    def _starts_resident(self, folder: Path) -> bool:
        """Whether to try with all models at once; a run that was cut otherwise goes on so."""
        if not has_other_cut(self.config):
            return True
        every = section_configs(self.config, resident=False)
        few = section_configs(self.config, resident=True)
        began_cut = any((folder / name / JOB).exists() for name in every.keys() - few.keys())
        return self.config.run.residency != "phased" and not began_cut

    def _go_cut(
        self, asked: Asked, on_start: Callable[[JoinedLive], None], *, resident: bool
    ) -> Report:
        assert self.run_dir is not None
        folder, began = self.run_dir, time.monotonic()
        self.close()
        self._sections = self._make(folder, began, resident=resident)
        self._live = live = JoinedLive([section.name for section in self._sections])
        on_start(live)
        ended = SectionThreads(self._sections, self._order).run(asked, live, inline=self._inline)
        error = worst(ended)
        if isinstance(error, ConfigError) and not live.has_items:
            raise error
        if any(section.pipeline.has_report for section in self._sections):
            wall_s = time.monotonic() - began
            reports = reports_of(self._sections, ended)
            report = joined_report(self.config, reports, error, self._order, live, wall_s=wall_s)
            self.has_report = self._write(report, asked.output, error)
        elif error is None:  # all was done already
            report = load_report(folder / REPORT)
        if error:
            raise error
        return report

    def _write(self, report: Report, output: Path, error: BaseException | None) -> bool:
        """Write report, trace and page; return whether; `error` would be the worse news."""
        assert self.run_dir is not None
        try:
            join_traces(self.run_dir, list(report.sections))
            write_report(self.run_dir / REPORT, report)
        except OSError as problem:
            why = f"{problem.filename}: cannot be written: {problem.strerror}"
            if error is None:
                raise RunpipeError(why) from problem
            logger.error("no report: %s", why)
            return False
        if self.config.page and (why := make_page(self.config.page, output, self.run_dir)):
            logger.warning("%s", why)
        return True

    def _make(self, folder: Path, began: float, *, resident: bool) -> list[Section]:
        pids, configs = JoinedPids(folder), section_configs(self.config, resident=resident)
        self._order = order = LoadOrder(
            tuple(configs),
            self.config.run.residency,
            has_other_cut=resident and has_other_cut(self.config),
        )
        sections: list[Section] = []
        for name, config in configs.items():
            before = sections[-1] if sections else None
            neighbours = Neighbours(
                before=before.own if before else None,
                own=(own := Leading()),
                may_load=_at_once if self._inline else partial(order.may_load, name),
                tell_pids=partial(pids.tell, name),
                run_dir=str(folder),
                earlier=str(before.folder) if before else "",
                trace_began=began,
                title=f": {name}",
                number=len(sections),
            )
            pipeline = Pipeline(
                config, inline=self._inline, verbosity=self._verbosity, neighbours=neighbours
            )
            sections.append(Section(name, pipeline, folder / name, own))
        return sections

    def drain(self) -> bool:
        """Let the run end once all that has begun is durable; see `Pipeline.drain`."""
        drained = [section.pipeline.drain() for section in self._sections]  # all of them
        return any(drained)

    def plans(
        self,
        *,
        run_dir: str | Path,
        input: str | Path | None = None,  # noqa: A002 - the word people use
        output: str | Path | None = None,
    ) -> dict[str, OpenedJob]:
        """Return how each section would run, by name. Loads nothing, opens no GPU.

        Raises:
            ConfigError: it cannot run as asked.
        """
        asked, folder = self._asked(input, output, overwrite=True), Path(run_dir).absolute()
        check_folders(asked.input, asked.output)
        self.close()
        resident = self._starts_resident(folder)
        self._sections = self._make(folder, time.monotonic(), resident=resident)
        return {
            one.name: one.pipeline.plan(
                run_dir=one.folder,
                input=asked.input,
                output=output_of(one.pipeline.config, asked.output),
            )
            for one in self._sections
        }

    def close(self) -> None:
        """Stop all workers. Safe to call twice."""
        for section in self._sections:
            section.pipeline.close()

    def __enter__(self) -> Chain:
        """Return the chain."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Stop all workers."""
        self.close()


def _at_once(_opened: OpenedJob, _runner: Runner) -> None:
    """Let a section load: inline, the one before has ended."""


def open_pipeline(
    config: PipelineConfig, *, verbosity: int = 0, terminal: Terminal | None = None
) -> Pipeline | Chain:
    """Return what runs `config`: in sections, if it has any."""
    if config.has_sections:
        return Chain(config, verbosity=verbosity, terminal=terminal)
    return Pipeline(config, verbosity=verbosity, terminal=terminal)
