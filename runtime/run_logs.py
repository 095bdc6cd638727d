"""Whose run directory it is, and who logs to it, while a run goes on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from runtime.errors import ConfigError
from runtime.logs import supervisor_logs
from runtime.run_dir import kept_to_ourselves
from runtime.terminal import Terminal


class RunLogs:
    """The logs of one pipeline's runs. Belongs to one thread at a time."""

    def __init__(self, verbosity: int, terminal: Terminal | None, *, enabled: bool = True) -> None:
        """Log nothing yet.

        Args:
            verbosity: see `supervisor_logs`.
            terminal: likewise.
            enabled: else somebody else logs for the whole process.
        """
        self._verbosity, self._terminal, self._is_enabled = verbosity, terminal, enabled
        self._is_logging = False

    @contextmanager
    def writing_in(self, folder: Path) -> Iterator[None]:
        """Keep the run directory to ourselves, and log to it.

        Raises:
            ConfigError: another run has it, or it cannot be written.
        """
        with ExitStack() as stack:
            try:
                stack.enter_context(kept_to_ourselves(folder))
                stack.enter_context(self._logs(folder))
            except OSError as error:
                raise ConfigError(f"{folder}: cannot be written: {error.strerror}") from error
            yield

    @contextmanager
    def last(self, folder: Path | None) -> Iterator[None]:
        """Log as the last run did, if nobody logs now: stopping may have something to tell."""
        with ExitStack() as stack:
            if folder and folder.exists() and not self._is_logging:
                with suppress(OSError):
                    stack.enter_context(self._logs(folder))
            yield

    @contextmanager
    def _logs(self, folder: Path) -> Iterator[None]:
        if not self._is_enabled:
            yield
            return
        with supervisor_logs(folder, verbosity=self._verbosity, terminal=self._terminal):
            self._is_logging = True
            try:
                yield
            finally:
                self._is_logging = False
