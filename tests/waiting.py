"""Waiting in tests: for a condition, never for a time."""

import time


def wait_until(condition, *, timeout_s=30.0):
    """Return when `condition()` is true; fail if that takes too long."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, f"still not so after {timeout_s} s"
        time.sleep(0.01)
