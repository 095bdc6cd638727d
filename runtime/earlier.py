"""The run that is to be resumed, as its directory has it: checked, and refused by name."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from runtime.account import weights_of
from runtime.config import PipelineConfig, dump_config
from runtime.errors import ConfigError, JournalDamaged, JournalEmpty
from runtime.fingerprint import basis, fingerprint, fingerprint_changes
from runtime.journal import DoneItems, Journal, set_journal_aside
from runtime.resume import Found, compare, item_size, work_changes
from runtime.setup import OpenedJob
from runtime.stage_code import stage_code
from runtime.stored import StoredJob, load_job, load_run_config, settings_of
from stages.base import Job

logger = logging.getLogger(__name__)

JOURNAL = "journal.sqlite"
NOTHING = DoneItems(b"", {}, 0, ())


class Earlier:
    """Owns the journal of an earlier run, if it came to have one, until `close`."""

    def __init__(
        self, folder: Path, stored: StoredJob, journal: Journal | None, *, is_forced: bool
    ) -> None:
        """For `earlier_run` only."""
        self.stored, self.journal = stored, journal
        self._folder, self._is_forced = folder, is_forced
        self.before: Found = journal.fingerprint if journal else _asked_before(folder, stored)
        self.warnings: list[str] = []
        self.changed: list[str] = []

    @property
    def item_size(self) -> int:
        """How large items must be for the durable ones to mean what they meant; 0: any size."""
        return item_size(self.before)

    def done(self) -> DoneItems:
        """Return what need not be done again, after a look at every file of it."""
        done = self.journal.done(self._folder) if self.journal else NOTHING
        self.warnings += done.problems
        return done

    def check_asked(self, config: PipelineConfig, job: Job) -> None:
        """Refuse to do something else than was asked first.

        Raises:
            ConfigError: configuration, input or output differ.
        """
        settings = settings_of(config)
        asked = {"config": settings, "input": job.input, "output": job.output}
        self._refuse(compare(self.before, asked).refused)

    def check_files(self, now: Found) -> None:
        """Refuse to go on where what is read, or what reads it, is not what it was.

        Args:
            now: what `basis` says.

        Raises:
            ConfigError: inputs, weights or code differ.
        """
        if self.journal is not None:  # else nothing was done yet with what there was
            unasked = {part: now[part] for part in ("inputs", "code_sha256", "stage_code")}
            self._refuse(compare(self.before, unasked).refused)

    def check_work(self, now: Found) -> bool:
        """Return whether what is durable is a part of what is to be done now.

        Args:
            now: the whole fingerprint.

        Raises:
            ConfigError: it is not, and starting from the first item was not asked for.
        """
        if self.journal is None:
            return False
        self.changed = fingerprint_changes(_unhashed(self.before), _unhashed(now))
        if lost := work_changes(self.before, now):
            self._refuse(lost)
            self.warnings.append("nothing that was durable fits: everything is done again")
            self.start_over()
            return False
        told = compare(self.before, now).told
        self.warnings += [f"bytes may differ: {change}" for change in told]
        return True

    def is_whole(self, config: PipelineConfig, opened: OpenedJob, done: DoneItems) -> bool:
        """Whether all that is to be done is durable: then it has only to be joined."""
        if self.journal is None or len(done) < opened.plan.num_items:
            return False
        return not work_changes(self.before, fingerprint_of(config, opened))

    def start_over(self) -> None:
        """Make room for a new journal; the old one is kept beside it."""
        if self.journal is not None:
            self.journal.close()
            self.journal = None
            set_journal_aside(self._folder / JOURNAL)

    def _refuse(self, changes: Iterable[str]) -> None:
        changes = [change for change in changes if f"changed: {change}" not in self.warnings]
        if not changes:
            return
        if not self._is_forced:
            raise ConfigError(
                f"{self._folder}: not resumed, as this would not be the same run: "
                f"{'; '.join(changes)}; --force goes on all the same"
            )
        self.warnings += [f"changed: {change}" for change in changes]

    def close(self) -> None:
        """Let others open the journal."""
        if self.journal is not None:
            self.journal.close()


@contextmanager
def earlier_run(folder: Path, *, is_forced: bool) -> Iterator[Earlier]:
    """Open what there is of the run in `folder`, until the block ends.

    Args:
        folder: the run directory.
        is_forced: go on whatever has changed; begin anew where the journal is damaged.

    Raises:
        ConfigError: no run has begun there.
        JournalError: its journal is damaged, or in use.
    """
    stored = load_job(folder)
    journal, problems = _open_journal(folder / JOURNAL, is_forced=is_forced)
    try:
        earlier = Earlier(folder, stored, journal, is_forced=is_forced)
    except BaseException:
        if journal:
            journal.close()
        raise
    earlier.warnings += problems
    try:
        yield earlier
    finally:
        earlier.close()


def basis_of(config: PipelineConfig, job: Job) -> dict[str, object]:
    """Return what is known of a run's results before it starts.

    Raises:
        ConfigError: a file that is an input cannot be read.
    """
    try:
        return basis(
            config_text=dump_config(config),
            settings=settings_of(config),
            source=job.input,
            output=job.output,
            inputs=[job.input, *weights_of(config)],
            stages=stage_code(stage.use for stage in config.stages.values()),
            seed=job.seed,
        )
    except OSError as error:
        raise ConfigError(f"{error.filename}: cannot be read: {error.strerror}") from error


def fingerprint_of(config: PipelineConfig, opened: OpenedJob) -> dict[str, object]:
    """Return what a run's results depend on, once it is prepared."""
    plan = opened.plan
    return fingerprint(
        basis_of(config, opened.job),
        threads={worker.name: worker.threads for worker in plan.workers},
        devices={w.name: w.gpu.name if w.gpu else "cpu" for w in plan.workers},
        shapes={
            f"{pool.owner.partition('/')[0]}.{place.name}": place.shape
            for pool in plan.pools
            for place in pool.places
        },
        work={
            "num_items": plan.num_items,
            "item_size": opened.item_size,
            "items_per_segment": plan.items_per_segment,
            "unit": opened.unit,
            "num_units": opened.num_units,
            "broken": opened.broken,
        },
    )


def _open_journal(path: Path, *, is_forced: bool) -> tuple[Journal | None, list[str]]:
    """Return the journal, or none where the run ended before it; and what there is to say."""
    if not path.exists():
        return None, []
    try:
        return Journal.open(path), []
    except JournalEmpty as error:
        problem = str(error)
    except JournalDamaged as error:
        if not is_forced:
            error.add_note("--force keeps it aside, and does everything again")
            raise
        problem = str(error)
    aside = set_journal_aside(path)
    return None, [f"{problem}; everything is done again, and it is kept as {aside.name}"]


def _asked_before(folder: Path, stored: StoredJob) -> Found:
    settings = settings_of(load_run_config(folder))
    return {"config": settings, "input": stored.input, "output": stored.output}


def _unhashed(found: Found) -> Found:
    return {part: value for part, value in found.items() if part != "config_sha256"}
