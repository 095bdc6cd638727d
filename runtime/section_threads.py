"""The sections of one run, each in a thread of its own, until all have ended."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import msgspec

from runtime.errors import RunIncomplete, RunInterrupted, RunpipeError
from runtime.joined import JoinedLive
from runtime.neighbours import ALL, Leading
from runtime.pipeline import Pipeline
from runtime.report import Report, ResumedReport, load_report
from runtime.residency import LoadOrder
from runtime.sections import output_of
from runtime.stored import JOB, StoredJob, load_job

REPORT = "report.json"
Ended = Mapping[str, Report | BaseException]  # by section; why there is no report


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What the whole run is to do."""

    input: str
    output: Path  # a folder
    overwrite: bool
    force: bool = False

    def stored(self, config_path: str, num_runs: int) -> StoredJob:
        """Return it as the run directory keeps it."""
        return StoredJob(
            input=self.input,
            output=str(self.output),
            overwrite=self.overwrite,
            config=config_path,
            num_runs=num_runs,
        )


@dataclass(frozen=True, slots=True)
class Section:
    """One section of a run."""

    name: str
    pipeline: Pipeline
    folder: Path  # its run directory
    own: Leading


def reports_of(sections: Sequence[Section], ended: Ended) -> dict[str, Report]:
    """Return the reports of the sections that came to have one, in their order.

    A section that was done before this run says so.
    """
    found = {}
    for section in sections:
        report = ended.get(section.name)
        if isinstance(report, RunIncomplete) and not section.pipeline.has_report:
            report = load_report(section.folder / REPORT)  # of before, which is there then
        if isinstance(report, Report) and not section.pipeline.has_report:
            items = report.items.done + report.items.failed
            runs = load_job(section.folder).num_runs
            resumed = ResumedReport(items=items, runs=runs)
            found[section.name] = msgspec.structs.replace(report, resumed=resumed)
        elif isinstance(report, Report):
            found[section.name] = report
        elif section.pipeline.has_report:
            with suppress(RunpipeError):  # the run says why it could not be written
                found[section.name] = load_report(section.folder / REPORT)
    return found


def worst(ended: Ended) -> BaseException | None:
    """Return what the whole run raises: the first real failure, else the first other one."""
    errors = [one for one in ended.values() if isinstance(one, BaseException)]
    for kinds in ((RunIncomplete, RunInterrupted), (RunIncomplete,), ()):
        for error in errors:
            if not isinstance(error, kinds):
                return error
    return None


class SectionThreads:
    """Runs sections. Made for one run."""

    def __init__(self, sections: Sequence[Section], order: LoadOrder) -> None:
        self._sections, self._order = sections, order

    def run(self, asked: Asked, live: JoinedLive, *, inline: bool) -> Ended:
        """Run all sections to their end; `inline`: in this order, each when the last has ended."""
        if inline:
            return self._in_turn(asked, live)
        futures: dict[Future[Report], str] = {}
        with ThreadPoolExecutor(len(self._sections), "section") as threads:
            try:
                for section in self._sections:
                    futures[threads.submit(self._one, section, asked, live)] = section.name
                self._watch(futures)
            except KeyboardInterrupt as why:
                self._stop(why)
        return {name: future.exception() or future.result() for future, name in futures.items()}

    def _in_turn(self, asked: Asked, live: JoinedLive) -> Ended:
        """Run one section after the other in this thread, as long as each goes to its end."""
        ended: dict[str, Report | BaseException] = {}
        for section in self._sections:
            try:
                ended[section.name] = self._one(section, asked, live)
            except RunIncomplete as error:
                ended[section.name] = error
            except (Exception, KeyboardInterrupt) as error:  # noqa: BLE001 - the run raises it
                ended[section.name] = error
                break
        return ended

    def _watch(self, futures: Mapping[Future[Report], str]) -> None:
        """Wait for all; with the first that fails as a whole the others end too."""
        pending = set(futures)
        while pending:
            done, pending = wait(pending, return_when=FIRST_COMPLETED)
            for error in filter(None, (future.exception() for future in done)):
                if not isinstance(error, RunIncomplete | RunInterrupted):
                    self._stop(KeyboardInterrupt())

    def _one(self, section: Section, asked: Asked, live: JoinedLive) -> Report:
        show = partial(live.show, section.name)
        output = output_of(section.pipeline.config, asked.output)
        try:
            if (section.folder / JOB).exists():
                report = section.pipeline.resume(
                    section.folder,
                    input=asked.input,
                    output=output,
                    overwrite=asked.overwrite,
                    force=asked.force,
                    on_start=show,
                )
            else:
                report = section.pipeline.run(
                    input=asked.input,
                    output=output,
                    overwrite=asked.overwrite,
                    run_dir=section.folder,
                    on_start=show,
                )
            section.own.reach(ALL)
        except RunIncomplete:
            section.own.reach(ALL)
            raise
        finally:
            section.own.end()
            if self._order.is_phased:
                section.pipeline.close()
            self._order.end(section.name)
        return report

    def _stop(self, why: KeyboardInterrupt) -> None:
        self._order.stop(why)
        for section in self._sections:
            section.pipeline.interrupt(why)
