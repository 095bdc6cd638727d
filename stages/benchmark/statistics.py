"""What is to say of some scores, and how sure it is. Knows no benchmark; numpy only.

A sample without a score is counted apart and is in no figure. Where there is no score at all,
there is no mean: None, not 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

CONFIDENCE = 0.95
RESAMPLES = 2000
SEED = 20250101  # fixed: the same scores always have the same interval
_BLOCK = 1 << 22  # numbers that are drawn at once

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """Of one metric of some samples. The figures are None where there is no score."""

    count: int  # samples with a score
    nulls: int = 0  # without one
    mean: float | None = None
    std: float | None = None  # of the scores, divided by n
    median: float | None = None
    min: float | None = None
    max: float | None = None
    interval: tuple[float, float] | None = None  # of the mean, by bootstrap; None under two scores


def summarize(values: Sequence[float | None]) -> Summary:
    """Return what is to say of `values`, of which None is a sample without a score.

    Raises:
        ValueError: a value is not finite.
    """
    return summarize_groups([values], overall="samples")


def summarize_groups(groups: Sequence[Sequence[float | None]], *, overall: str) -> Summary:
    """Return what is to say of several groups together.

    Args:
        groups: the values of each; None is a sample without a score.
        overall: "samples": the mean is over all samples, drawn again from all of them;
            "groups": it is the mean of the means of the groups that have a score, and samples are
            drawn again within each. Everything but mean and interval is of all samples either way.

    Raises:
        ValueError: a value is not finite.
    """
    known = [np.array([v for v in values if v is not None], np.float64) for values in groups]
    scores = np.concatenate([*known, np.zeros(0)])
    if not np.isfinite(scores).all():
        raise ValueError("a score is not a finite number")
    nulls = sum(map(len, groups)) - len(scores)
    if not len(scores):
        return Summary(count=0, nulls=nulls)
    drawn = [values for values in known if len(values)] if overall == "groups" else [scores]
    return Summary(
        count=len(scores),
        nulls=nulls,
        mean=float(np.mean([values.mean() for values in drawn])),
        std=float(scores.std()),
        median=float(np.median(scores)),
        min=float(scores.min()),
        max=float(scores.max()),
        interval=_interval(drawn) if len(scores) > 1 else None,
    )


def _interval(drawn: Sequence[Floats]) -> tuple[float, float]:
    """Return the percentile bootstrap interval of the mean of the means of `drawn`."""
    random = np.random.default_rng(SEED)
    means = np.zeros(RESAMPLES)
    for values in drawn:
        rows = max(1, _BLOCK // len(values))
        for first in range(0, RESAMPLES, rows):
            size = (min(rows, RESAMPLES - first), len(values))
            picked = values[random.integers(len(values), size=size)]
            means[first : first + size[0]] += picked.mean(axis=1)
    means /= len(drawn)
    outside = (1 - CONFIDENCE) / 2
    low, high = np.quantile(means, [outside, 1 - outside])
    return float(low), float(high)
