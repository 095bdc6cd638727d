"""Runs the command line for one cell of the kill matrix, and sees what it leaves behind."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import av
import msgspec
import yaml

from runtime.config import find_config
from runtime.config_files import read_config
from tools.kill_cells import NUM_FRAMES, WORKERS, Cell
from tools.kill_order import STRUCK, SUPERVISOR, VARIABLE, Order

PROJECT = Path(__file__).resolve().parent.parent
RUNPIPE = PROJECT / "bin" / "runpipe"
SIZE = (128, 96)
HANG_S = 2.0  # of cells in which somebody is stopped
STOPPED_S = 3.0  # how long a stopped supervisor stays so: longer than HANG_S
LIMIT_S = 120.0  # of one run of the command line; on a quiet machine it takes 5
GONE_S = 2.0  # how long workers may outlive a killed supervisor
POLL_S = 0.02
SHARED_MEMORY = Path("/dev/shm")  # where libraries might leave something; the runtime has memfds
WRAPPED = {
    "read": "tools.killing:Read",
    "encode": "tools.killing_eden:Encode",
    "denoise": "tools.killing_eden:Denoise",
    "decode": "tools.killing_eden:Decode",
    "write": "tools.killing:Write",
}


@dataclass(frozen=True, slots=True)
class Ran:
    """What the runs of one cell came to, beside their files."""

    codes: tuple[int | None, ...]  # exit codes; None: it did not end in time
    wall_s: float  # of all
    has_struck: bool
    left: tuple[str, ...]  # processes, socket folders, shared memory
    stderr: str  # the last lines


class Place:
    """The folder of one cell."""

    def __init__(self, folder: Path) -> None:
        """Make it."""
        self.folder = folder
        self.run_dir, self.output = folder / "run", folder / "out" / "out.mp4"
        self.config, self.order, self.stderr = (
            folder / name for name in ("cell.yaml", "order.json", "stderr.txt")
        )
        self.sockets = folder / "t"  # TMPDIR; short, because socket paths are
        for made in (self.output.parent, self.sockets):
            made.mkdir(parents=True)

    def files(self) -> frozenset[str]:
        """Return what lies under the output's folder and the run's, but for logs."""
        return frozenset(
            str(path.relative_to(self.folder))
            for top in (self.output.parent, self.run_dir)
            for path in top.rglob("*")
            if path.is_file() and path.parent != self.run_dir / "logs"
        )


def make_clip(path: Path) -> None:
    """Write the clip: the first frames of the demo's, made small."""
    with (
        av.open(str(PROJECT / "configs/demo/clip.mp4")) as source,
        av.open(str(path), "w") as clip,
    ):
        options = {"crf": "10", "preset": "veryfast", "threads": "1"}
        stream = clip.add_stream("libx264", rate=8, options=options)
        stream.width, stream.height = SIZE
        stream.pix_fmt = "yuv420p"
        for number, frame in zip(range(NUM_FRAMES), source.decode(video=0), strict=False):
            small = frame.reformat(*SIZE, format="yuv420p")
            small.pts, small.time_base = number, 1 / stream.codec_context.framerate
            clip.mux(stream.encode(small))
        clip.mux(stream.encode())


def config_of(cell: Cell) -> dict[str, object]:
    """Return the demo's configuration with the stages of this cell, and small segments."""
    demo = dict(read_config(find_config("demo.yaml")))
    uses = dict(WRAPPED)
    if cell.victim == "control":
        uses["decode"] = "tools.killing_eden:DecodeByAttempt"
    if not cell.is_plain:
        demo["stages"] = {name: {"use": uses[name]} for name in WORKERS}
    video = demo["video"]
    assert isinstance(video, dict), "of demo.yaml"
    # Without loss, so that frames can be compared one by one where one is missing.
    demo["video"] = video | {"pairs": 1, "segment_windows": 2, "crf": 0, "preset": "ultrafast"}
    demo["groups"] = cell.groups
    demo["run"] = {"threads": 1} | ({"hang_s": HANG_S} if cell.way == "SIGSTOP" else {})
    return demo


def run_cell(cell: Cell, place: Place, clip: Path) -> Ran:
    """Run the command line as the cell says, then `--resume` if that is expected to be needed."""
    place.config.write_text(yaml.safe_dump(config_of(cell), sort_keys=False))
    place.order.write_bytes(msgspec.json.encode(cell.order))
    before = set(SHARED_MEMORY.iterdir())
    began = time.monotonic()
    words = ["--config", place.config, "--input", clip, "--output", place.output]
    codes = [_run(cell, place, [*words, "--run-dir", place.run_dir])]
    processes = _left_running(place)
    if len(cell.expected.codes) > 1 and codes[0] is not None and not processes:
        place.order.write_bytes(msgspec.json.encode(Order()))  # all that was ordered is over
        codes.append(_run(cell, place, ["--resume", place.run_dir]))
        processes = _left_running(place)
    wall_s = time.monotonic() - began
    _end(processes)
    return Ran(
        codes=tuple(codes),
        wall_s=wall_s,
        has_struck=(place.folder / STRUCK).exists(),
        left=(
            *(f"process {command}" for command in processes.values()),
            *(f"socket folder {path.name}" for path in place.sockets.iterdir()),
            *(f"shared memory {path.name}" for path in _stayed(before)),
        ),
        stderr="\n".join(place.stderr.read_text().splitlines()[-12:]),
    )


def _run(cell: Cell, place: Place, words: Sequence[object]) -> int | None:
    """Run the command line; return its exit code, or None if it had to be killed."""
    environment = {
        **os.environ,
        VARIABLE: str(place.order),
        "TMPDIR": str(place.sockets),
    }
    alarm = _Alarm(cell, place)
    with place.stderr.open("ab") as stderr:
        process = subprocess.Popen(
            [str(RUNPIPE), *map(str, words), "--quiet"],
            cwd=place.folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=stderr,
            stderr=stderr,
            start_new_session=True,
        )
        deadline = time.monotonic() + LIMIT_S
        try:
            while time.monotonic() < deadline:
                with suppress(subprocess.TimeoutExpired):
                    return process.wait(POLL_S)
                alarm.check(process)
        finally:
            if process.returncode is None:
                process.kill()
                process.wait()
                _end(_marked(place))
    return None


class _Alarm:
    """Has a stopped supervisor go on after a while."""

    def __init__(self, cell: Cell, place: Place) -> None:
        self._is_set = (cell.victim, cell.way) == (SUPERVISOR, "SIGSTOP")
        self._struck = place.folder / STRUCK
        self._at = 0.0

    def check(self, process: subprocess.Popen[bytes]) -> None:
        if not self._is_set or not self._struck.exists():
            return
        self._at = self._at or time.monotonic() + STOPPED_S
        if time.monotonic() >= self._at:
            process.send_signal(signal.SIGCONT)
            self._is_set = False


def _marked(place: Place) -> dict[int, str]:
    """Return the processes that have this cell's order in their environment, and what they are."""
    mark = f"{VARIABLE}={place.order}".encode()
    found = {}
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit():
            continue
        with suppress(OSError):  # it has ended meanwhile, or is another user's
            if mark in (folder / "environ").read_bytes().split(b"\0"):
                command = (folder / "cmdline").read_bytes().replace(b"\0", b" ")
                found[int(folder.name)] = command.decode(errors="replace").strip()
    return found


def _left_running(place: Place) -> dict[int, str]:
    """Return the processes that are still there after a while."""
    deadline = time.monotonic() + GONE_S
    while (found := _marked(place)) and time.monotonic() < deadline:
        time.sleep(POLL_S)
    return found


def _end(processes: dict[int, str]) -> None:
    for pid in processes:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def _stayed(before: set[Path]) -> list[Path]:
    """Return what is new in shared memory and stays; runs beside this one come and go."""
    deadline = time.monotonic() + GONE_S
    while (new := set(SHARED_MEMORY.iterdir()) - before) and time.monotonic() < deadline:
        time.sleep(POLL_S)
    return sorted(new)
