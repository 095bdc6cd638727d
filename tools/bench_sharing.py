"""How two stages share one GPU: as two processes that take turns, under MPS, or in one process."""

from __future__ import annotations

import json
import math
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from multiprocessing.connection import wait
from multiprocessing.synchronize import Semaphore
from pathlib import Path
from statistics import median
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # `python tools/bench_sharing.py`

import click

from runtime.cli_table import table
from runtime.host import ROOT, probe_host
from tools.bench_gpus import gpu_facts
from tools.hop_report import circumstances
from tools.sharing_work import READY_S, Work, serve

MPS_FOLDER = "/usr/local/nvidia/bin"  # also where PATH does not say so
MPS_CONTROL = "nvidia-cuda-mps-control"
AHEAD = 4  # windows that encode may be ahead of decode, as slots would allow
GRACE_S = 30.0
SIGNALLED = 128
BOTH = ("encode", "decode")


@dataclass(frozen=True, slots=True)
class Way:
    """One way to share the GPU: which stages each process has."""

    name: str
    processes: tuple[tuple[str, ...], ...]
    with_mps: bool = False


WAYS = (
    Way("encode alone", (("encode",),)),
    Way("decode alone", (("decode",),)),
    Way("two processes, in turns", (("encode",), ("decode",))),
    Way("two processes, MPS", (("encode",), ("decode",)), with_mps=True),
    Way("grouped in one process", (BOTH,)),
)


class ShareDied(RuntimeError):
    """A process of the benchmark ended, or did not answer."""


def windows_per_s(way: Way, work: Work) -> float:
    """Run one way once, and return the windows a second that went through all of its stages.

    Raises:
        ShareDied: a process ended, or did not answer.
    """
    mp_context = get_context("spawn")
    ready = mp_context.Barrier(len(way.processes))
    ahead, made = mp_context.Semaphore(AHEAD), mp_context.Semaphore(0)
    # Two processes: decode takes what encode has made, encode what decode has freed.
    links: list[tuple[Semaphore | None, Semaphore | None]] = (
        [(ahead, made), (made, ahead)] if len(way.processes) == 2 else [(None, None)]
    )
    with ExitStack() as stack:
        ends, processes = [], []
        for names, (credit, gives) in zip(way.processes, links, strict=True):
            ours, theirs = mp_context.Pipe()
            stack.callback(ours.close)
            process = mp_context.Process(
                target=serve, args=(names, work, ready, credit, gives, theirs), daemon=True
            )
            process.start()
            stack.callback(_stop, process)
            theirs.close()
            ends.append(ours)
            processes.append(process)
        answers = [_answer(end, processes, way.name) for end in ends]
        for process in processes:
            process.join(GRACE_S)
    windows, seconds = answers[-1]  # of the last stage: what has gone through all
    return float(windows / seconds)


def _answer(end: Any, processes: Sequence[Any], way: str) -> tuple[int, float]:  # noqa: ANN401
    sentinels = {process.sentinel: process for process in processes}
    while not end.poll():
        gone = wait([end, *sentinels], READY_S)
        if not gone:
            raise ShareDied(f"{way}: no answer for {READY_S:.0f} s")
        dead = [sentinels.pop(one) for one in gone if one in sentinels]
        if any(process.exitcode for process in dead):
            raise ShareDied(f"{way}: a process died; see above")
    try:
        answer: tuple[int, float] = end.recv()
    except EOFError as error:
        raise ShareDied(f"{way}: a process died; see above") from error
    return answer


def _stop(process: Any) -> None:  # noqa: ANN401
    process.terminate()
    process.join(GRACE_S)
    process.kill()
    process.join()
    process.close()


def mps_control() -> str:
    """Return the path of NVIDIA's MPS control program; "" where there is none."""
    return shutil.which(MPS_CONTROL, path=f"{os.environ.get('PATH', '')}:{MPS_FOLDER}") or ""


@contextmanager
def mps(control: str) -> Iterator[None]:
    """Run an MPS server of our own, which processes started inside use; always stop it."""
    with (
        tempfile.TemporaryDirectory(prefix="rp-mps-") as folder,
        _environment(
            {
                "CUDA_MPS_PIPE_DIRECTORY": f"{folder}/pipe",
                "CUDA_MPS_LOG_DIRECTORY": f"{folder}/log",
            }
        ),
    ):
        for name in ("pipe", "log"):
            Path(folder, name).mkdir()
        try:
            subprocess.run([control, "-d"], check=True, timeout=GRACE_S)
            yield
        finally:
            subprocess.run([control], input="quit\n", text=True, check=False, timeout=GRACE_S)


@contextmanager
def _environment(variables: Mapping[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def measure(
    ways: Sequence[Way], work: Work, *, repeat: int
) -> tuple[dict[str, list[float]], list[str]]:
    """Run all ways in turn; return the windows a second of each run, and what did not run."""
    found: dict[str, list[float]] = {}
    failed: dict[str, str] = {}
    turns = [way for _ in range(repeat) for way in ways]
    with click.progressbar(turns, label="measuring", file=sys.stderr) as bar:
        for way in (way for way in bar if way.name not in failed):
            try:
                with mps(mps_control()) if way.with_mps else nullcontext():
                    speed = windows_per_s(way, work)
                found.setdefault(way.name, []).append(speed)
            except (ShareDied, subprocess.SubprocessError) as error:
                failed[way.name] = f"note: {way.name} failed: {error}"
    return found, list(failed.values())


def lines(found: Mapping[str, Sequence[float]], work: Work) -> list[str]:
    """Return the table."""
    speeds = {name: median(runs) for name, runs in found.items()}
    grouped = speeds.get(WAYS[-1].name, math.nan)
    rows = [
        (
            name,
            f"{speed:.1f}",
            f"{1e3 / speed / work.pairs:.3f}",
            f"{speed / grouped:.3f} x",
            f"{min(found[name]):.1f} - {max(found[name]):.1f}",
        )
        for name, speed in speeds.items()
    ]
    head = ("way", "windows/s", "ms a pair", "over grouped", "spread")
    return table(head, rows, right=",".join(head[1:]))


@click.command(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.option("--weights", default="random:0", show_default=True)
@click.option("--dtype", default="bfloat16", show_default=True)
@click.option("--device", default="cuda:0", show_default=True)
@click.option("--width", default=720, show_default=True)
@click.option("--height", default=480, show_default=True)
@click.option("--pairs", type=click.IntRange(min=1), default=16, show_default=True)
@click.option("--seconds", type=float, default=5.0, show_default=True, help="Of each run.")
@click.option("--repeat", type=click.IntRange(min=1), default=3, show_default=True)
@click.option("--json", "path", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE")
def main(repeat: int, path: Path | None, **options: Any) -> None:  # noqa: ANN401
    """Measure encode and decode of EDEN on one GPU: in two processes, under MPS, in one process.

    Windows a second that go through both stages, which hand nothing over but the count: each has
    noise of its own on the device. Encode is at most four windows ahead.
    """
    work, notes = Work(**options), []
    has_gpu, control = bool(probe_host(ROOT).gpus), mps_control()
    ways = [way for way in WAYS if not way.with_mps or (has_gpu and control)]
    if len(ways) < len(WAYS):
        lacks = f"{MPS_CONTROL} is not installed" if has_gpu else "there is no GPU"
        notes.append(f"note: MPS: {lacks}")
    found, failed = measure(ways, work, repeat=repeat)
    notes += failed
    click.echo("\n".join([*lines(found, work), *notes]))
    if path:
        record = circumstances() | gpu_facts() | {"work": asdict(work), "windows_per_s": found}
        path.write_text(json.dumps(record | {"notes": notes}, indent=2) + "\n")
    if failed:
        raise click.ClickException("not everything could be measured")


def _interrupt(signum: int, _frame: object) -> None:
    """Unwind once: processes and the MPS server go on the way out."""
    for each in (signal.SIGINT, signal.SIGTERM):
        signal.signal(each, signal.SIG_IGN)
    raise SystemExit(SIGNALLED + signum)


if __name__ == "__main__":
    signal.signal(signal.SIGINT, _interrupt)
    signal.signal(signal.SIGTERM, _interrupt)
    main()
