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

from runtime.chain_report import told_before, write_surely
from runtime.config import PipelineConfig
from runtime.cuts import cuts_to_try
from runtime.errors import ConfigError, PlanError, RunpipeError
from runtime.job_paths import check_folders
from runtime.joined import JoinedLive, JoinedPids, joined_report
from runtime.neighbours import Leading, Neighbours
from runtime.pipeline import Pipeline
from runtime.report import Report
from runtime.residency import LoadOrder, NotResident, at_once, choose
from runtime.run_dir import make_run_dir, wait_for_orphans
from runtime.run_logs import RunLogs
from runtime.section_threads import Asked, Section, SectionThreads, reports_of, worst
from runtime.sections import output_of, section_configs
from runtime.setup import OpenedJob
from runtime.stored import JOB, load_job, store_config, store_job
from runtime.terminal import Terminal

logger = logging.getLogger(__name__)


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
                store_config(folder, self.config)
                store_job(folder, asked.stored(str(self.config.path or ""), 1))
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
        check_folders(asked.input, asked.output)
        with self._logs.writing_in(folder):
            if (asked.input, str(asked.output)) != (stored.input, stored.output) and not force:
                raise ConfigError(
                    f"{folder}: not resumed: it was a run of {stored.input} to {stored.output}; "
                    "--force goes on all the same"
                )
            wait_for_orphans(folder)
            again = asked.stored(stored.config, stored.num_runs + 1)
            store_job(folder, again)
            return self._go(replace(asked, force=force), on_start)

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

    def _go(self, asked: Asked, on_start: Callable[[JoinedLive], None]) -> Report:
        assert self.run_dir is not None
        try:
            asked.output.mkdir(exist_ok=True)
        except OSError as error:
            raise ConfigError(f"{asked.output}: cannot be made: {error.strerror}") from error
        first, *others = cuts_to_try(self.config, self.run_dir)
        try:
            return self._go_cut(asked, on_start, resident=first, has_other=bool(others))
        except PlanError as error:
            if not others or self._live.has_items:
                raise
            logger.info("another cut, since %s", error)
            return self._go_cut(asked, on_start, resident=others[0], has_other=False)

    def _go_cut(
        self,
        asked: Asked,
        on_start: Callable[[JoinedLive], None],
        *,
        resident: bool,
        has_other: bool,
    ) -> Report:
        assert self.run_dir is not None
        folder, began = self.run_dir, time.monotonic()
        self.close()
        self._sections = self._make(folder, began, resident=resident, has_other=has_other)
        self._live = live = JoinedLive([section.name for section in self._sections])
        on_start(live)
        ended = SectionThreads(self._sections, self._order).run(asked, live, inline=self._inline)
        error = worst(ended)
        if isinstance(error, ConfigError) and not live.has_items:
            raise error
        reports, wall_s = reports_of(self._sections, ended), time.monotonic() - began
        if not reports:
            raise error or RunpipeError(f"{folder}: no section has a report")
        report = joined_report(self.config, reports, error, self._order, live, wall_s=wall_s)
        is_new = any(section.pipeline.has_report for section in self._sections)
        if not is_new and (told := told_before(report, folder)):
            report = told
        else:
            self.has_report = write_surely(report, self.config, asked.output, folder, error)
        if error:
            raise error
        return report

    def _make(
        self, folder: Path, began: float, *, resident: bool, has_other: bool
    ) -> list[Section]:
        pids, configs = JoinedPids(folder), section_configs(self.config, resident=resident)
        self._order = order = LoadOrder(
            tuple(configs),
            self.config.run.residency,
            has_other_cut=has_other,
        )
        sections: list[Section] = []
        for name, config in configs.items():
            before = sections[-1] if sections else None
            neighbours = Neighbours(
                before=before.own if before else None,
                own=(own := Leading()),
                may_load=at_once if self._inline else partial(order.may_load, name),
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
        """Let the run end once all that has begun is durable; see `Pipeline.drain`.

        A section that has not begun does not begin any more.
        """
        drained = [section for section in self._sections if section.pipeline.drain()]
        if drained:
            why = KeyboardInterrupt()
            self._order.stop(why)
            for section in self._sections:
                if section not in drained and not section.own.is_over:
                    section.pipeline.interrupt(why)
        return bool(drained)

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
        first, *others = cuts_to_try(self.config, folder)
        try:
            return self._plans(asked, folder, resident=first, has_other=bool(others))
        except PlanError:
            if not others:
                raise
            return self._plans(asked, folder, resident=others[0], has_other=False)

    def _plans(
        self, asked: Asked, folder: Path, *, resident: bool, has_other: bool
    ) -> dict[str, OpenedJob]:
        self.close()
        self._sections = self._make(
            folder, time.monotonic(), resident=resident, has_other=has_other
        )
        found = {
            one.name: one.pipeline.plan(
                run_dir=one.folder,
                input=asked.input,
                output=output_of(one.pipeline.config, asked.output),
            )
            for one in self._sections
        }
        needs = {name: opened.plan.memory for name, opened in found.items()}
        if choose(self.config.run.residency, needs).is_phased and has_other:
            raise NotResident("not all models fit at once")
        return found

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
