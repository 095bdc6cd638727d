"""Which samples are asked for, in which order, and who is judged with whom. Pure.

Judge groups are made of all samples of a set before any is left out, so that a sample is judged in
the same place beside the same neighbours whether all are asked for or a few. Samples are edited in
the order of their groups: the first group is whole as early as can be.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from itertools import groupby

from stages.base import UserError
from stages.benchmark.facts import edited_size
from stages.benchmark.formats import origin
from stages.benchmark.samples import Sample


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The samples of a set in order, by their positions in it."""

    groups: tuple[tuple[int, ...], ...]  # of all samples, each of one edited size
    asked: frozenset[int]

    @property
    def order(self) -> tuple[int, ...]:
        """The samples that are asked for, in order of their groups."""
        return tuple(one for group in self.groups for one in group if one in self.asked)

    @property
    def asked_groups(self) -> tuple[int, ...]:
        """The groups that have a member that is asked for."""
        return tuple(n for n, group in enumerate(self.groups) if self.asked.intersection(group))

    def needs(self) -> tuple[int, ...]:
        """Return for each of `asked_groups` how many samples it and those before it have."""
        counts, count = [], 0
        for number in self.asked_groups:
            count += len(self.asked.intersection(self.groups[number]))
            counts.append(count)
        return tuple(counts)


def make_plan(
    samples: Sequence[Sample], *, asked: frozenset[int], area: int, group_size: int
) -> Plan:
    """Return the plan of a set.

    Samples whose image cannot be read come last, in groups of their own: nobody judges them, and
    they are reported as all others.
    """
    if area < 1:
        raise UserError(f"area = {area}: an edited image has at least 1 pixel")
    if group_size < 1:
        raise UserError(f"group_size = {group_size}: a judge group has at least 1 sample")
    keyed = sorted((*_size_key(one, area), one.id, at) for at, one in enumerate(samples))
    groups: list[tuple[int, ...]] = []
    for _, neighbours in groupby(keyed, key=lambda row: row[:2]):
        same = [row[-1] for row in neighbours]
        groups += [tuple(same[at : at + group_size]) for at in range(0, len(same), group_size)]
    return Plan(groups=tuple(groups), asked=asked)


def asked_for(
    samples: Sequence[Sample], where: str, *, categories: Sequence[str], limit: int
) -> frozenset[int]:
    """Return the positions of the first `limit` samples of some categories; 0 and () are all.

    Raises:
        UserError: there is no such category; says which is nearest.
    """
    if limit < 0:
        raise UserError(f"limit = {limit}: at least 1, or 0 for all")
    there = sorted({sample.group for sample in samples if sample.group})
    wanted = {_group(name, there, where) for name in categories}
    found = [at for at, one in enumerate(samples) if not wanted or one.group in wanted]
    return frozenset(found[:limit] if limit else found)


def _size_key(sample: Sample, area: int) -> tuple[int, int]:
    """Return what sorts by edited size, large ones first, those without one last."""
    if sample.problem:
        return (0, 0)
    height, width = edited_size(sample.height, sample.width, area)
    return (-height * width, height)


def _group(name: str, there: Sequence[str], where: str) -> str:
    """Return the group of a set that a user means by `name`."""
    by_lower = {group.lower(): group for group in there}
    if found := by_lower.get(name.strip().lower()):
        return found
    try:
        if (english := origin.category(name)) in there:
            return english
    except UserError:
        pass  # no name of the five, in any language; these may be others
    nearest = get_close_matches(name.lower(), by_lower, n=1, cutoff=0)
    meant = f"; did you mean `{by_lower[nearest[0]]}`?" if nearest else ";"
    raise UserError(f"{where}: no category `{name}`{meant} There are {', '.join(there)}")
