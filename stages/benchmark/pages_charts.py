"""Charts of scores as inline SVG, without scripts; colours are the page's. Knows no results."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from stages.benchmark.pages_text import Markup, number, said

WIDTH, HEIGHT = 720, 240
_LEFT, _RIGHT, _TOP, _BOTTOM = 44, 12, 16, 34
_BINS = 20


def histogram(scores: Sequence[float], low: float, high: float, metric: str) -> Markup:
    """Return how many scores lie where between `low` and `high`."""
    counts = _counts(scores, low, high, _BINS)
    top = max(int(counts.max()), 1)
    wide = (WIDTH - _LEFT - _RIGHT) / _BINS
    tall = HEIGHT - _TOP - _BOTTOM
    bars = []
    for bin_number, count in enumerate(counts.tolist()):
        begin = low + (high - low) * bin_number / _BINS
        end = low + (high - low) * (bin_number + 1) / _BINS
        size = tall * count / top
        bars.append(
            f'<rect class="bar" x="{_LEFT + bin_number * wide + 1:.1f}" '
            f'y="{_TOP + tall - size:.1f}" width="{wide - 2:.1f}" height="{size:.1f}">'
            f"<title>{begin:g} to {end:g}: {count}</title></rect>"
        )
    told = ", ".join(
        f"{low + (high - low) * at / _BINS:g}: {count}" for at, count in enumerate(counts) if count
    )
    label = f"Histogram of {metric}, {len(scores)} samples"
    return Markup(
        f'<div class="scroll"><svg class="chart" id="histogram" viewBox="0 0 {WIDTH} {HEIGHT}" '
        f'role="img" aria-label="{said(label)}"><title>{said(label)}</title>'
        f"<desc>Samples by lower end of the bar: {told or 'none'}</desc>"
        + _grid(top, tall)
        + "".join(bars)
        + _axis(low, high, metric)
        + "</svg></div>"
    )


def _grid(top: int, tall: float) -> str:
    """Return lines and numbers at whole counts, at most five."""
    step = max(1, -(-top // 4))
    parts = []
    for count in range(0, top + 1, step):
        y = _TOP + tall - tall * count / top
        parts.append(
            f'<line class="grid" x1="{_LEFT}" x2="{WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'
            f'<text x="{_LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{count}</text>'
        )
    return "".join(parts)


def _axis(low: float, high: float, metric: str) -> str:
    marks = np.linspace(low, high, int(high - low) + 1).tolist()
    wide = WIDTH - _LEFT - _RIGHT
    return "".join(
        f'<text x="{_LEFT + wide * (mark - low) / (high - low):.1f}" y="{HEIGHT - _BOTTOM + 16}" '
        f'text-anchor="middle">{mark:g}</text>'
        for mark in marks
    ) + (
        f'<text class="label" x="{_LEFT + wide / 2}" y="{HEIGHT - 4}" '
        f'text-anchor="middle">{said(metric)}</text>'
    )


def spark(scores: Sequence[float], low: float, high: float) -> Markup:
    """Return a histogram as small as a word."""
    bins = 10
    counts = _counts(scores, low, high, bins)
    top = max(int(counts.max()), 1)
    bars = "".join(
        f'<rect class="bar" x="{at * 9}" y="{22 - 20 * count / top:.1f}" width="8" '
        f'height="{20 * count / top:.1f}"/>'
        for at, count in enumerate(counts.tolist())
    )
    label = f"distribution from {low:g} to {high:g} in tenths: {', '.join(map(str, counts))}"
    return Markup(
        f'<svg class="spark" viewBox="0 0 90 24" role="img" aria-label="{label}">'
        f'<line class="grid" x1="0" x2="90" y1="23" y2="23"/>{bars}</svg>'
    )


def whisker(
    mean: float | None, interval: Sequence[float] | None, low: float, high: float
) -> Markup:
    """Return a mean with its interval on the whole scale."""
    if mean is None:
        return Markup("")

    def at(value: float) -> float:
        return 4 + 132 * (value - low) / (high - low)

    told = f"mean {number(mean)}"
    line = ""
    if interval:
        told += f", interval {number(interval[0])} to {number(interval[1])}"
        first, last = at(interval[0]), at(interval[1])
        line = f'<rect class="range" x="{first:.1f}" y="8" width="{last - first:.1f}" height="8"/>'
    return Markup(
        f'<svg class="whisker" viewBox="0 0 140 24" role="img" aria-label="{told}">'
        f'<line class="grid" x1="4" x2="136" y1="12" y2="12"/>{line}'
        f'<circle class="mean" cx="{at(mean):.1f}" cy="12" r="4"/></svg>'
    )


def _counts(scores: Sequence[float], low: float, high: float, bins: int) -> np.ndarray:
    return np.histogram(np.clip(scores, low, high), bins=bins, range=(low, high))[0]
