"""The parts of tools/bench_edit_score.py that need no GPU: what the runtime itself costs."""

from __future__ import annotations

import copy
import itertools
import json
from collections import Counter
from pathlib import Path
from statistics import median
from typing import Any

from runtime.chain import Chain
from runtime.config import find_config, parse_config
from runtime.config_files import read_config
from tools.bench_edit_ends import STAMPS
from tools.bench_edit_parts import Bench
from tools.bench_edit_runs import CONFIG, EDITS
from tools.bench_edit_samples import write_set

SIDE, SAMPLES, EDIT_S = 1280, 24, 0.5  # 4.9 MB, and time for a core to decode and encode one
CATEGORIES, NUM_GPUS, SLOT_S = (50, 50, 70, 50, 50), 6, 0.25
SLOTS = -(-sum(CATEGORIES) // NUM_GPUS)  # 45; a barrier after each category makes 48 of it


def overhead(bench: Bench) -> None:
    """Pictures of 4.9 MB, decoded and encoded, around an editor that only waits."""
    samples = write_set(bench.folder / "set-overhead", SAMPLES, SIDE)
    rows = fake_run(bench.folder / "overhead", samples, replicas=1, took_s=EDIT_S)
    began = sorted(row["at_s"] for row in rows if row["what"].startswith("by "))
    ms = [1e3 * (b - a - EDIT_S) for a, b in itertools.pairwise(began)]
    bench.details["overhead"] = {"ms": ms}
    bench.add(
        f"runtime's own time a sample, {3 * SIDE**2 / 1e6:.1f} MB, PNG read and written",
        median(ms),
        "ms",
        10.0,
        note=f"{min(ms):.1f} - {max(ms):.1f}, beside an edit of {1e3 * EDIT_S:.0f} ms",
    )


def slots(bench: Bench) -> None:
    """Five categories on six editors that all take equally long: nobody waits for a category."""
    samples = write_set(bench.folder / "set-slots", sum(CATEGORIES), 32, counts=CATEGORIES)
    rows = fake_run(bench.folder / "slots", samples, replicas=NUM_GPUS, took_s=SLOT_S)
    of_each = Counter(row["what"] for row in rows if row["what"].startswith("by "))
    began = [row["at_s"] for row in rows if row["what"].startswith("by ")]
    wall = max(began) - min(began) + SLOT_S
    bench.details["slots"] = {"items": sorted(of_each.values()), "wall_s": wall}
    most = max(of_each.values())
    bench.add(
        f"slots of work, {'/'.join(map(str, CATEGORIES))} samples on {NUM_GPUS} fake GPUs",
        most,
        target=SLOTS,
        note=f"with a barrier after each category 48; wall {wall / SLOT_S:.1f} slots",
    )


def fake_run(folder: Path, samples: Path, *, replicas: int, took_s: float) -> list[dict[str, Any]]:
    """Run the edit section with editors that wait; return its stamps."""
    path = find_config(CONFIG)
    data = copy.deepcopy(dict(read_config(path)))
    stages: dict[str, Any] = data["stages"]  # type: ignore[assignment] # checked when it is read
    stages.pop("prompts")
    stages["score"].pop("gpus")
    fake = {"use": "tools.bench_edit_fakes:FakeEdit", "with": {"took_s": took_s}}
    stages["edit"] = fake | {"replicas": replicas}
    for key in ("groups", "model"):
        data.pop(key)
    data["run"] = {"only": EDITS}
    config = parse_config(data, path=path.absolute())
    folder.mkdir()
    with Chain(config) as chain:
        chain.run(input=samples, output=folder / "output", run_dir=folder / "run")
    lines = (folder / "run" / EDITS / STAMPS).read_text().splitlines()
    return [json.loads(line) for line in lines]
