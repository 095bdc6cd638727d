"""What this process has used so far, and what several incarnations of a worker have."""

from __future__ import annotations

import re
from pathlib import Path

from ipc.records import JobUsage, LinkStats


def max_rss_bytes() -> int:
    """Return the most memory that this program had resident at once.

    Not `ru_maxrss`: exec does not reset that, so a worker's would start at its supervisor's.
    """
    status = Path("/proc/self/status").read_text()
    found = re.search(r"^VmHWM:\s+(\d+) kB$", status, re.MULTILINE)
    assert found, status
    return int(found[1]) * 1024


def added(before: JobUsage, now: JobUsage) -> JobUsage:
    """Return what both have cost, one after the other: peaks are the higher of the two."""
    links = {one.peer: one for one in before.links}
    for link in now.links:
        links[link.peer] = _added_link(links[link.peer], link) if link.peer in links else link
    return JobUsage(
        job=max(before.job, now.job),
        items=before.items + now.items,
        busy_s=before.busy_s + now.busy_s,
        cpu_user_s=before.cpu_user_s + now.cpu_user_s,
        cpu_system_s=before.cpu_system_s + now.cpu_system_s,
        max_rss_bytes=max(before.max_rss_bytes, now.max_rss_bytes),
        gpu_peak_bytes=max(before.gpu_peak_bytes, now.gpu_peak_bytes),
        links=tuple(links[peer] for peer in sorted(links)),
    )


def _added_link(before: LinkStats, now: LinkStats) -> LinkStats:
    return LinkStats(
        peer=now.peer,
        transport=now.transport,
        items=before.items + now.items,
        bytes=before.bytes + now.bytes,
        wait_s=before.wait_s + now.wait_s,
    )
