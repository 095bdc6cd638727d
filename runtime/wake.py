"""How one thread wakes another that waits for descriptors, or has it stop what it does."""

from __future__ import annotations

import os


class Wake:
    """Owns a descriptor that can be read when somebody has called. From any thread."""

    def __init__(self) -> None:
        self.fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._why: KeyboardInterrupt | None = None

    def call(self, why: KeyboardInterrupt | None = None) -> None:
        """Wake whoever waits; `why`: have `heard` raise it, once. Also in a signal's handler."""
        self._why = why or self._why
        os.eventfd_write(self.fd, 1)

    def heard(self) -> None:
        """Be ready for the next call.

        Raises:
            KeyboardInterrupt: whoever called said so.
        """
        os.eventfd_read(self.fd)
        why, self._why = self._why, None
        if why is not None:
            raise why

    def close(self) -> None:
        """Nobody may call any more."""
        os.close(self.fd)
