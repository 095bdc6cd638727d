"""Which replica gets an item. Pure functions, called by the worker that sends.

Some items have no choice: a sink's segment belongs to one replica, and an item goes back to the
worker of a group that holds its tensors already. All others go where the fewest of the sender's
own items are, and no replica is given more than one beyond the one it runs: an item that waits
with its sender can still go to whoever is free first.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

MAX_UNFREED = 2  # of one sender at one replica: the one it runs and one beyond


def of_segment(item: int, items_per_segment: int, workers: Sequence[str]) -> str:
    """Return the replica of a sink that writes the segment of `item`."""
    return workers[item // items_per_segment % len(workers)]


def of_owner(owners: Iterable[str], workers: Sequence[str]) -> str | None:
    """Return the one of `workers` that wrote some of the item's tensors, if there is one."""
    return next((owner for owner in owners if owner in workers), None)


def round_robin(item: int, workers: Sequence[str]) -> str:
    """Return the replica whose turn it is."""
    return workers[item % len(workers)]


def least_loaded(unfreed: Mapping[str, int]) -> str | None:
    """Return the replica with the fewest unfreed items of this sender, the first of equals.

    None if each has MAX_UNFREED. A single replica takes everything: there is no other to wait for.
    """
    worker = min(unfreed, key=lambda name: unfreed[name])
    return worker if len(unfreed) == 1 or unfreed[worker] < MAX_UNFREED else None
