"""The losses of a training as a table and as a picture."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

WIDTH, HEIGHT, MARGIN = 720, 200, 40  # pixels, of one phase
FIELDS = ("phase", "step", "loss")
Row = tuple[str, int, float]


def read_losses(path: Path) -> list[Row]:
    """Return the lines of a table."""
    with path.open(newline="") as file:
        return [
            (row["phase"], int(row["step"]), float(row["loss"])) for row in csv.DictReader(file)
        ]


def write_losses(path: Path, rows: Sequence[Row]) -> None:
    """Write lines of phase, step since the beginning, and mean loss since the line before."""
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(FIELDS)
        writer.writerows((phase, step, f"{loss:.6g}") for phase, step, loss in rows)


def plot_losses(rows: Sequence[Row], picture: Path) -> None:
    """Draw the lines as an SVG, one graph a phase; each has its own scale."""
    phases = list(dict.fromkeys(row[0] for row in rows))
    graphs = []
    for number, phase in enumerate(phases):
        points = [(step, loss) for name, step, loss in rows if name == phase]
        graphs.append(_graph(phase, points, number * HEIGHT))
    head = '<svg xmlns="http://www.w3.org/2000/svg" font-family="sans-serif" font-size="12"'
    size = f'width="{WIDTH}" height="{HEIGHT * len(phases)}"'
    background = '<rect width="100%" height="100%" fill="white"/>'
    picture.write_text("\n".join([f"{head} {size}>", background, *graphs, "</svg>"]) + "\n")


def _graph(phase: str, points: list[tuple[int, float]], top: int) -> str:
    steps, losses = zip(*points, strict=True)
    first, last, low, high = steps[0], steps[-1], min(losses), max(losses)
    across = (WIDTH - 2 * MARGIN) / max(last - first, 1)
    down = (HEIGHT - 2 * MARGIN) / ((high - low) or 1.0)
    line = " ".join(
        f"{MARGIN + (step - first) * across:.1f},{top + MARGIN + (high - loss) * down:.1f}"
        for step, loss in points
    )
    bottom = top + HEIGHT - MARGIN
    return "\n".join(
        [
            f'<polyline points="{line}" {line_style("#2060a0")}/>',
            f'<path d="M{MARGIN} {top + MARGIN}V{bottom}H{WIDTH - MARGIN}" {line_style("#888")}/>',
            f'<text x="{MARGIN}" y="{top + MARGIN - 14}">{phase}: loss {high:.4g} to {low:.4g}'
            f" (lowest), last {losses[-1]:.4g}</text>",
            f'<text x="{MARGIN}" y="{bottom + 18}">step {first}</text>',
            f'<text x="{WIDTH - MARGIN}" y="{bottom + 18}" text-anchor="end">step {last}</text>',
        ]
    )


def line_style(color: str) -> str:
    """Return the attributes of a line."""
    return f'fill="none" stroke="{color}"'
