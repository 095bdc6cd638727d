"""How one thread wakes another that waits for descriptors, or has it stop what it does."""

from __future__ import annotations

import os
import threading


class Wake:
    """Owns a descriptor that can be read when somebody has called. From any thread."""

    def __init__(self) -> None:
        self.fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._why: KeyboardInterrupt | None = None
        # a signal's handler may call while this very thread is in `call`
        self._lock = threading.RLock()
        self._is_closed = False

    def call(self, why: KeyboardInterrupt | None = None) -> None:
        """Wake whoever waits; `why`: have `heard` raise it, once. Nobody hears it after `close`."""
        with self._lock:
            if not self._is_closed:
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
        """Nobody waits any more."""
        with self._lock:
            self._is_closed = True
            os.close(self.fd)
