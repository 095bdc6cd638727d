"""What one hop between two processes costs: runpipe's own code, and what else there is."""

from __future__ import annotations

import json
import re
import signal
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict
from multiprocessing import get_context
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # `python tools/bench_hop.py`

import click

from runtime.host import ROOT, usable_memory
from tools.bench_figures import figure_lines
from tools.bench_gpus import gpu_facts
from tools.hop_gpus import gpu_pairs, measure_gpus, tasks
from tools.hop_others import PickleQueue, RayStore, TorchQueue
from tools.hop_ours import Runpipe
from tools.hop_pair import SLOTS, Contender, EndDied, Pair, Task
from tools.hop_report import (
    ALONE,
    KIB,
    MIB,
    OURS,
    Result,
    Run,
    circumstances,
    show_size,
    table,
    targets,
)
from tools.hop_zmq import BareZmq

KINDS: dict[str, type[Contender]] = {
    kind.name: kind for kind in (Runpipe, BareZmq, PickleQueue, TorchQueue, RayStore)
}
UNITS = {"": 1, "KiB": KIB, "MiB": MIB, "GiB": 1024 * MIB}
MOST_COPIES = 16  # of an item that are there at once: the window's, each in several buffers
SIGNALLED = 128


class Size(click.ParamType):
    """Bytes, as 4096, 64KiB or 4MiB."""

    name = "size"

    def convert(
        self, value: str | int, param: click.Parameter | None, ctx: click.Context | None
    ) -> int:
        """Return the number of bytes."""
        match = re.fullmatch(r"([1-9]\d*) ?([KMG]iB|)", str(value))
        nbytes = int(match[1]) * UNITS[match[2]] if match else 0
        if not nbytes or nbytes % 8:
            self.fail(f"{value!r} is no size such as 64KiB, a multiple of 8 bytes", param, ctx)
        if MOST_COPIES * nbytes > (free := usable_memory(ROOT)):
            self.fail(
                f"{value} may need {MOST_COPIES * nbytes / MIB:.0f} MiB of memory, and "
                f"{free / MIB:.0f} MiB are free",
                param,
                ctx,
            )
        return nbytes


def measure(
    names: Sequence[str], sizes: Sequence[int], *, seconds: float, repetitions: int
) -> tuple[list[Result], list[str]]:
    """Run everything; return the results, and why something did not run.

    Contenders take turns within each repetition, so that a busy moment of the machine hits all.
    """
    mp_context = get_context("spawn")  # fresh interpreters, as workers are
    runs: dict[tuple[int, str], list[Run]] = {}
    lacks = {(name, size): KINDS[name].missing(size) for name in names for size in (*sizes, ALONE)}
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="rp-")))
        pairs = {
            name: stack.enter_context(Pair(KINDS[name](mp_context, folder), mp_context))
            for name in names
            if not lacks[name, ALONE]
        }
        turns = [(size, name) for size in (*sizes, ALONE) for name in pairs]
        turns = [(size, name) for size, name in turns if not lacks[name, size]]
        with click.progressbar(turns * repetitions, label="measuring", file=sys.stderr) as bar:
            for size, name in bar:
                stamps = pairs[name].run(_task(size, seconds))
                runs.setdefault((size, name), []).append(Run.of(stamps))
    results = [
        Result.of(size, KINDS[name], own, runs[size, OURS]) for (size, name), own in runs.items()
    ]
    notes = {
        f"{name}: {why}" if lacks[name, ALONE] else f"{name}, {show_size(size)}: {why}": None
        for (name, size), why in lacks.items()
        if why
    }
    return results, list(notes)


def _task(size: int, seconds: float) -> Task:
    if size == ALONE:
        return Task(nbytes=8, seconds=seconds, slots=1, touch=False)
    return Task(nbytes=size, seconds=seconds, slots=SLOTS, touch=True)


@click.command(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.option(
    "--size",
    "sizes",
    type=Size(),
    multiple=True,
    default=("64KiB", "4MiB", "64MiB"),
    show_default=True,
    help="Bytes of an item; may be given again.",
)
@click.option(
    "--contender",
    "names",
    type=click.Choice(list(KINDS)),
    multiple=True,
    default=tuple(KINDS),
    help=f"Compare with these only; {OURS} always runs. By default all that are installed.",
)
@click.option(
    "--seconds",
    type=click.FloatRange(min=0, min_open=True),
    default=1.0,
    show_default=True,
    help="Of each run.",
)
@click.option("--repetitions", type=click.IntRange(min=1), default=5, show_default=True)
@click.option("--gpu", is_flag=True, help="Between GPUs instead, and within one.")
@click.option(
    "--json",
    "path",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Write it all there too: every repetition, hardware, versions.",
)
def main(
    sizes: tuple[int, ...],
    names: tuple[str, ...],
    seconds: float,
    repetitions: int,
    gpu: bool,
    path: Path | None,
) -> None:
    """Measure what one hop between two processes costs.

    Every byte of an item is written by one process and read by the other, four items are under way,
    and contenders take turns; figures are medians of the repetitions. Then the message alone: one
    item under way, none of its bytes touched.

    With --gpu: copied into a pool of one GPU's memory and out of it to another's, beside the copy
    alone; the last items of each run are compared with what was sent.
    """
    found = circumstances()
    if gpu:
        _measure_gpus(found, seconds=seconds, repetitions=repetitions, path=path)
        return
    names = tuple(name for name in KINDS if name in (OURS, *names))
    try:
        results, notes = measure(names, sizes, seconds=seconds, repetitions=repetitions)
    except EndDied as error:
        raise click.ClickException(str(error)) from error
    judged = targets(results)
    notes += [f"{name}: {KINDS[name].how}" for name in names]
    click.echo(table(results, judged, notes))
    if path:
        settings = {"seconds": seconds, "repetitions": repetitions, "items_under_way": SLOTS}
        record = found | {
            "settings": settings,
            "results": [asdict(result) for result in results],
            "targets": [asdict(target) for target in judged],
            "notes": notes,
        }
        path.write_text(json.dumps(record, indent=2) + "\n")


def _measure_gpus(
    found: dict[str, object], *, seconds: float, repetitions: int, path: Path | None
) -> None:
    pairs, lacks = gpu_pairs()
    try:
        figures, details = measure_gpus(pairs, tasks(seconds), repetitions=repetitions)
    except EndDied as error:
        raise click.ClickException(str(error)) from error
    notes = [f"note: {lacks}"] if lacks else []
    click.echo("\n".join([*(figure_lines(figures) if figures else ()), *notes]))
    if path:
        record = {
            "settings": {"seconds": seconds, "repetitions": repetitions},
            "figures": [asdict(one) | {"verdict": one.verdict} for one in figures],
            "details": details,
            "notes": notes,
        }
        path.write_text(json.dumps(found | gpu_facts() | record, indent=2) + "\n")


def _interrupt(signum: int, _frame: object) -> None:
    """Unwind once: processes and sockets go on the way out."""
    for each in (signal.SIGINT, signal.SIGTERM):
        signal.signal(each, signal.SIG_IGN)
    raise SystemExit(SIGNALLED + signum)


if __name__ == "__main__":
    signal.signal(signal.SIGINT, _interrupt)
    signal.signal(signal.SIGTERM, _interrupt)
    main()
