"""What this process has used so far."""

from __future__ import annotations

import re
from pathlib import Path


def max_rss_bytes() -> int:
    """Return the most memory that this program had resident at once.

    Not `ru_maxrss`: exec does not reset that, so a worker's would start at its supervisor's.
    """
    status = Path("/proc/self/status").read_text()
    found = re.search(r"^VmHWM:\s+(\d+) kB$", status, re.MULTILINE)
    assert found, status
    return int(found[1]) * 1024
