"""What each process of tools/bench_sharing.py does: run EDEN's stages on windows of noise."""

from __future__ import annotations

import ctypes
import signal
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.synchronize import Barrier, Semaphore
from typing import Any

import torch

from runtime.parent import PR_SET_PDEATHSIG
from stages.base import Item, Job, TensorSpec
from stages.eden import Decode, Encode
from stages.window import VideoFacts, WindowMeta

UNDER_WAY = 2  # windows that a process has queued on the GPU at once
WARM_UP = 8  # windows, not counted
READY_S = 300.0  # for loading and preparing


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """What every process does."""

    weights: str
    dtype: str
    device: str
    width: int
    height: int
    pairs: int
    seconds: float

    @property
    def facts(self) -> VideoFacts:
        """Of one window of frames, which lie in memory."""
        return VideoFacts(
            job=Job(input="", output="", work_dir=""),
            width=self.width,
            height=self.height,
            num_frames=self.pairs + 1,
            pairs_per_item=self.pairs,
            pixel_format="yuv420p",
            color_matrix="bt709",
            color_range="limited",
        )


class Stages:
    """Stages of one process, with tensors of their own on the device."""

    def __init__(self, names: Sequence[str], work: Work) -> None:
        kinds: dict[str, type[Encode] | type[Decode]] = {"encode": Encode, "decode": Decode}
        self._cuda = torch.cuda if torch.device(work.device).type == "cuda" else None
        if self._cuda:  # of our own, as a worker has one: the default stream waits for others
            self._cuda.set_stream(self._cuda.Stream(work.device))
        self._stages = []
        for name in names:
            stage = kinds[name](weights=work.weights, dtype=work.dtype)
            stage.load(work.device)
            assert stage.prepare(work.facts, work.pairs) == work.pairs, "the window does not fit"
            self._stages.append((stage, *_tensors(stage, work)))
        times = tuple(range(work.pairs + 1))
        cuts = (False,) * work.pairs
        self._meta = WindowMeta(num_pairs=work.pairs, pts=times, cuts=cuts)

    def run(self, number: int) -> Callable[[], None]:
        """Queue one window; return what waits until it is done."""
        item = Item(index=number, attempt=0, meta=self._meta)
        for stage, inputs, outputs in self._stages:
            stage.run(inputs, outputs, item)
        if not self._cuda:
            return lambda: None
        event = self._cuda.Event(blocking=True)
        event.record()
        wait_done: Callable[[], None] = event.synchronize
        return wait_done


def _tensors(stage: Any, work: Work) -> tuple[dict[str, Any], dict[str, Any]]:  # noqa: ANN401
    """Return inputs full of noise, and outputs, all on the device."""
    torch.manual_seed(0)
    facts, device = work.facts, work.device
    written = Encode(weights=work.weights, dtype=work.dtype).specs(facts)
    geometry = written["tokens_dec"].shape
    latents = (work.pairs, geometry[1] // 4, stage.architecture.latent)
    specs = {
        **written,
        "frames": TensorSpec((work.pairs + 1, facts.frame_bytes), "uint8"),
        "latents": TensorSpec(latents, "float32"),
    }

    def noise(name: str) -> torch.Tensor:
        spec = specs[name]
        if spec.dtype == "uint8":
            return torch.randint(16, 236, spec.shape, dtype=torch.uint8, device=device)
        values = torch.randn(spec.shape, device=device)
        values = values.abs_().add_(0.1) if name == "stats" else values
        return values.to(getattr(torch, spec.dtype))

    outputs = {
        name: torch.empty(spec.shape, dtype=getattr(torch, spec.dtype), device=device)
        for name, spec in stage.specs(facts).items()
    }
    return {name: noise(name) for name in stage.reads}, outputs


def serve(
    names: Sequence[str],
    work: Work,
    ready: Barrier,
    credit: Semaphore | None,
    made: Semaphore | None,
    answer: Any,  # noqa: ANN401 - a connection
) -> None:
    """Be one process: run windows until the time is up; answer (windows, seconds).

    Args:
        names: of its stages.
        work: what to do.
        ready: all processes wait here when they are prepared.
        credit: to take before each window; None: as fast as it goes.
        made: to release after each window, for the process behind; None: nobody waits.
        answer: where to tell.
    """
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    stages = Stages(names, work)
    for number in range(WARM_UP):
        stages.run(number)()
    ready.wait(READY_S)
    under_way: deque[Callable[[], None]] = deque()
    begun, done, began = 0, 0, time.monotonic()
    ended = began
    while (left_s := work.seconds - (time.monotonic() - began)) > 0:
        if credit is not None and not credit.acquire(timeout=left_s):
            break
        under_way.append(stages.run(begun))
        begun += 1
        if len(under_way) == UNDER_WAY:
            under_way.popleft()()
            done, ended = done + 1, time.monotonic()
            if made is not None:
                made.release()
    for wait_done in under_way:
        wait_done()
    answer.send((done, ended - began))
