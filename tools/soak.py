"""A long run of trivial items: nothing may grow, nothing be lost, whoever is killed on the way.

    tools/soak.py                     # a million items, without kills and with them
    tools/soak.py --items 100000 --kills none

Three workers count, mix and digest; what comes out must be what the same arithmetic gives here.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # `python tools/soak.py`

import click
import msgspec
import yaml

from runtime.cli_table import nbytes_text, table
from tools.soak_stages import Soaked, expected
from tools.soak_watch import ALL, NOTHING, SUPERVISOR, Held, Sample, take_sample, workers_of

PROJECT = Path(__file__).resolve().parent.parent
PER_SEGMENT = 25  # more make the journal smaller, and choosing the next item of a queue slower
NUM_WORKERS = 3
MOST_GROWTH_BYTES = 8 * 2**20
START_SHARE = 0.1  # of all items; growth is counted from there
SAMPLE_S = 1.0
POLL_S = 0.05


@dataclass(frozen=True, slots=True)
class Soak:
    """What one run came to."""

    items: int
    kills: int  # that were sent
    exit_code: int
    wall_s: float
    items_per_s: float
    is_right: bool  # every item once, with the right numbers
    first: Sample | None  # after a tenth of the items
    last: Sample | None  # while there were items
    peak_bytes: int  # of all processes, also while the output is joined and the trace is written
    samples: list[Sample] = field(repr=False)

    def problems(self) -> list[str]:
        """Return what is not as it must be."""
        found = []
        if self.exit_code or not self.is_right:
            found.append(f"exit code {self.exit_code}, items {'right' * self.is_right or 'wrong'}")
        if self.first is None or self.last is None or self.first is self.last:
            return [*found, "too short to see growth"]
        before, after = self.first.held[ALL], self.last.held[ALL]
        if (grown := after.nbytes - before.nbytes) > MOST_GROWTH_BYTES:
            found.append(f"{nbytes_text(grown)} more memory")
        if (more := after.descriptors - before.descriptors) > 0:
            found.append(f"{more} more descriptors")
        return found


class Killer:
    """Kills a random worker every so many items on average."""

    def __init__(self, every: int, seed: int) -> None:
        """`every` 0 kills nobody."""
        self._every, self._random = every, random.Random(seed)
        self._next = self._after(0)
        self.num_kills = 0

    def look(self, supervisor: int, items: int) -> None:
        """Kill somebody if it is time."""
        if items < self._next:
            return
        workers = workers_of(supervisor)
        if len(workers) < NUM_WORKERS:
            return  # one is dead already: when it is back
        with suppress(ProcessLookupError):
            os.kill(workers[self._random.choice(sorted(workers))], signal.SIGKILL)
            self.num_kills += 1
        self._next = self._after(items)

    def _after(self, items: int) -> float:
        return items + self._random.expovariate(1 / self._every) if self._every else float("inf")


def soak(folder: Path, *, items: int, kill_every: int, seed: int) -> Soak:
    """Run `items` items in a new folder, and watch."""
    folder.mkdir()
    run_dir, output = folder / "run", folder / "out.json"
    process, began = _start(folder, items), time.monotonic()
    killer, samples, next_sample = Killer(kill_every, seed), list[Sample](), 0.0
    done, first_at, last_at = 0, 0.0, 0.0
    while process.poll() is None:
        while (run_dir / "segments" / f"{done // PER_SEGMENT:06}").exists():
            done, last_at = done + PER_SEGMENT, time.monotonic()
            first_at = first_at or last_at
        killer.look(process.pid, done)
        if done and (now := time.monotonic()) >= next_sample:
            next_sample = now + SAMPLE_S
            sample = take_sample(
                process.pid, items=min(done, items), at_s=now - began, num_workers=NUM_WORKERS
            )
            samples += [sample] if sample else []
        with suppress(subprocess.TimeoutExpired):
            process.wait(POLL_S)
    counted = done - PER_SEGMENT
    return Soak(
        items=items,
        kills=killer.num_kills,
        exit_code=process.returncode,
        wall_s=time.monotonic() - began,
        items_per_s=counted / (last_at - first_at) if last_at > first_at else 0.0,
        is_right=_is_right(output, items),
        first=next((one for one in samples if one.items >= START_SHARE * items), None),
        last=next((one for one in reversed(samples) if one.items < items), None),
        peak_bytes=max((one.held[ALL].nbytes for one in samples), default=0),
        samples=samples,
    )


def _start(folder: Path, items: int) -> subprocess.Popen[bytes]:
    (folder / "items.txt").write_text(str(items))
    names = {"count": "Count", "mix": "Mix", "digest": "Digests"}
    stages = {name: {"use": f"tools.soak_stages:{use}"} for name, use in names.items()}
    config = {"pipeline": "soak", "stages": stages, "video": {"per_segment": PER_SEGMENT}}
    (folder / "soak.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
    words = ["--config", "soak.yaml", "--input", "items.txt", "--output", "out.json", "--quiet"]
    command = [str(PROJECT / "bin" / "runpipe"), *words, "--run-dir", "run"]
    return subprocess.Popen(command, cwd=folder, stdin=subprocess.DEVNULL)


def _is_right(output: Path, items: int) -> bool:
    if not output.exists():
        return False
    return msgspec.json.decode(output.read_bytes(), type=Soaked) == expected(items, PER_SEGMENT)


def lines(soaked: Soak) -> list[str]:
    """Return the table of one run."""
    what = f"{soaked.kills} kills" if soaked.kills else "no kills"
    head = [
        f"{soaked.items:,} items, {what}: {soaked.items_per_s:,.0f} items/s, {soaked.wall_s:.0f} s"
        f", exit code {soaked.exit_code}, every item once and right: {soaked.is_right}"
    ]
    if soaked.first is None or soaked.last is None:
        return head
    first, last = soaked.first, soaked.last
    names = ["process", "own memory", "more", "pools", "more ", "descriptors", "regions", "threads"]
    rows = [_row(name, first.held.get(name), last.held[name]) for name in _ordered(last)]
    head.append(
        f"after {last.items:,} items, and how much more than after {first.items:,}; "
        f"{nbytes_text(soaked.peak_bytes)} at most, with the trace being written"
    )
    return [*head, "", *table(names, rows, right=",".join(names[1:]))]


def _ordered(sample: Sample) -> list[str]:
    return [SUPERVISOR, *sorted(set(sample.held) - {SUPERVISOR, ALL}), ALL]


def _row(name: str, before: Held | None, after: Held) -> list[str]:
    before = before or NOTHING
    return [
        name,
        nbytes_text(after.own_bytes),
        f"{(after.own_bytes - before.own_bytes) / 2**20:+.1f} MiB",
        nbytes_text(after.pools_bytes),
        f"{(after.pools_bytes - before.pools_bytes) / 2**20:+.1f} MiB",
        f"{after.descriptors} ({after.descriptors - before.descriptors:+})",
        f"{after.regions} ({after.regions - before.regions:+})",
        f"{after.threads} ({after.threads - before.threads:+})",
    ]


@click.command()
@click.option("--items", default=1_000_000, show_default=True, type=click.IntRange(1))
@click.option("--kills", type=click.Choice(["both", "none", "only"]), default="both")
@click.option("--every", default=20_000, show_default=True, help="Items between two kills.")
@click.option("--seed", default=0, show_default=True, help="Of who is killed, and when.")
@click.option("--json", "json_path", type=Path, help="Write every sample to this file.")
def main(items: int, kills: str, every: int, seed: int, json_path: Path | None) -> None:
    """Run a long run without kills, and one with them; print what grew."""
    runs = {"both": [0, every], "none": [0], "only": [every]}[kills]
    found = []
    with tempfile.TemporaryDirectory(prefix="soak-") as folder:
        for number, kill_every in enumerate(runs):
            soaked = soak(Path(folder) / str(number), items=items, kill_every=kill_every, seed=seed)
            found.append(soaked)
            click.echo("\n".join(lines(soaked)))
            click.echo(f"{'; '.join(soaked.problems()) or 'as it must be'}\n")
    if json_path:
        json_path.write_text(json.dumps([asdict(one) for one in found], indent=1))
    raise SystemExit(any(one.problems() for one in found))


if __name__ == "__main__":
    main()
