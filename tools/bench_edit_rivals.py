"""What people run without runpipe, each a process of its own, for tools/bench_edit_score.py.

    edit    diffusers' pipeline in a loop; pictures are saved by a thread beside it
    judge   the judge in groups over pictures that are there already
    serial  editor and judge moved to the GPU and back to the host for each sample

`main` in a process of its own says "RESULT {...}" when it is ready, then does as many samples as
each line of stdin asks for, and says how long each took.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from PIL import Image

from runtime.config import PROJECT
from tools.bench_edit_runs import Work
from tools.bench_edit_samples import Sample, read_set

SAID = "RESULT "
END_S = 60.0
_MAIN = "import sys; from tools.bench_edit_rivals import main; main(*sys.argv[1:])"


class Spec(msgspec.Struct, frozen=True, kw_only=True):
    """What a rival is told."""

    work: Work
    samples: str  # of `write_set`
    first: int = 0  # it takes every `every`th sample from here on
    every: int = 1
    edits: str  # folder of edited pictures

    def own(self) -> list[Sample]:
        """Return its samples."""
        return read_set(Path(self.samples))[self.first :: self.every]


@dataclass(slots=True)
class Rival:
    """The other end: a rival that runs."""

    process: subprocess.Popen[str]
    began: float
    ready_s: float = 0.0  # from its start until it could edit

    def ready(self) -> None:
        """Wait until it has loaded."""
        self._result()
        self.ready_s = time.monotonic() - self.began

    def ask(self, count: int) -> None:
        """Have it do `count` samples."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"{count}\n")
        self.process.stdin.flush()

    def seconds(self) -> list[float]:
        """Return how long each sample of the last `ask` took."""
        seconds: list[float] = self._result()["seconds"]
        return seconds

    def end(self) -> None:
        """Let it end, and wait."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        if self.process.wait(END_S):
            raise RuntimeError(f"rival ended with {self.process.returncode}")

    def _result(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.startswith(SAID):
                found: dict[str, Any] = json.loads(line.removeprefix(SAID))
                return found
        raise RuntimeError(f"rival ended with {self.process.wait()}; see above")


@contextmanager
def rival(kind: str, spec: Spec, gpu: int) -> Iterator[Rival]:
    """Start a rival on one GPU; it is gone after the block."""
    text = msgspec.json.encode(spec).decode()
    command = [sys.executable, "-c", _MAIN, kind, text]
    process = subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=PROJECT,
        text=True,
        env=os.environ | ({"CUDA_VISIBLE_DEVICES": _visible(gpu)} if spec.work.on_gpu else {}),
    )
    with process:
        try:
            yield Rival(process, time.monotonic())
        finally:
            process.kill()


def _visible(gpu: int) -> str:
    """Return what to make visible for our `gpu`: by what is visible to us."""
    given = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    return given.split(",")[gpu] if given else str(gpu)


# --- in the rival's process -----------------------------------------------------------------------


def _device(work: Work) -> str:
    return "cuda:0" if work.on_gpu else "cpu"


class Edits:
    """diffusers' pipeline in a loop."""

    def __init__(self, spec: Spec) -> None:
        import torch

        from stages.editing.checkpoint import open_checkpoint
        from stages.editing.models import load_whole
        from stages.editing.published import PLAIN, PLUS
        from stages.editing.stage import DTYPES

        self._torch, self._spec = torch, spec
        work = spec.work
        checkpoint = open_checkpoint(work.weights, (PLAIN, PLUS))
        device = torch.device(_device(work))
        with torch.no_grad():  # what inference mode makes cannot be moved between devices
            self.pipeline: Any = load_whole(checkpoint, device, DTYPES[work.dtype])
        self.pipeline.set_progress_bar_config(disable=True)
        if work.compiles:
            self.pipeline.transformer.compile_repeated_blocks(fullgraph=True)
        self._saving = ThreadPoolExecutor(1)
        Path(spec.edits).mkdir(parents=True, exist_ok=True)

    def run(self, sample: Sample) -> None:
        """Edit one sample; it is saved beside the next one."""
        work = self._spec.work
        scale = work.true_cfg_scale
        edited = self.pipeline(
            image=Image.fromarray(sample.pixels()),
            prompt=sample.instruction,
            negative_prompt=" " if scale > 1 else None,
            true_cfg_scale=scale,
            num_inference_steps=work.steps,
            height=work.side,
            width=work.side,
            generator=self._torch.Generator().manual_seed(0),
        ).images[0]
        path = Path(self._spec.edits) / f"{sample.id}.png"
        self._saving.submit(edited.save, path, compress_level=1)

    def close(self) -> None:
        """Wait for what is being saved."""
        self._saving.shutdown()


class Judged:
    """The judge over groups of pictures that are there."""

    def __init__(self, spec: Spec) -> None:
        import torch

        from stages.base import Job
        from stages.benchmark.facts import GroupFacts
        from stages.judging import Score

        self._torch, self._spec, work = torch, spec, spec.work
        nbytes = 3 * work.side * work.side
        self.stage = Score(weights=work.judge, protocol="origin", dtype=work.dtype)  # type: ignore[arg-type]
        self.stage.load(_device(work))
        facts = GroupFacts(
            job=Job(input="", output="", work_dir=""),
            num_samples=work.group_size,
            group_size=work.group_size,
            max_source_bytes=nbytes,
            max_edited_bytes=nbytes,
            max_instruction_bytes=4096,
        )
        self.stage.prepare(facts, 1)

    def run(self, samples: Sequence[Sample]) -> None:
        """Judge one group."""
        from stages.base import Item
        from stages.benchmark.facts import GroupMeta, Member

        side = (self._spec.work.side,) * 2
        members = tuple(
            Member(
                id=one.id,
                group=one.group,
                language="en",
                instruction=one.instruction,
                source=side,
                edited=side,
                state="edited",
                copy_of=row,
            )
            for row, one in enumerate(samples)
        )
        edits = [Path(self._spec.edits) / f"{one.id}.png" for one in samples]
        inputs = {
            "sources": self._rows([one.pixels() for one in samples]),
            "edits": self._rows([np.array(Image.open(path).convert("RGB")) for path in edits]),
        }
        outputs = {"judged": self._torch.zeros(len(samples), dtype=self._torch.uint8)}
        meta = GroupMeta(members=members)
        self.stage.run(inputs, outputs, Item(index=0, attempt=0, meta=meta))

    def _rows(self, pictures: Sequence[Any]) -> Any:  # noqa: ANN401
        rows = np.stack([one.reshape(-1) for one in pictures])
        return self._torch.from_numpy(rows).to(_device(self._spec.work))


def _serial(spec: Spec) -> Callable[[Sample], None]:
    """Return the origin's way: each model on the GPU only while it works."""
    work = spec.work
    editor = Edits(spec)
    editor.pipeline.to("cpu")
    judge = Judged(msgspec.structs.replace(spec, work=_one_row(work)))
    model, device = judge.stage.qwen.model, _device(work)
    model.to("cpu")

    def run(sample: Sample) -> None:
        editor.pipeline.to(device)
        editor.run(sample)
        editor.pipeline.to("cpu")
        editor.close()  # the judge reads the file
        editor._saving = ThreadPoolExecutor(1)
        model.to(device)
        judge.run([sample])
        model.to("cpu")

    return run


def _one_row(work: Work) -> Work:
    return msgspec.convert(msgspec.to_builtins(work) | {"group_size": 1}, Work)


def _say(result: Mapping[str, object]) -> None:
    print(SAID + json.dumps(result), flush=True)


def main(kind: str, text: str) -> None:
    """Be a rival."""
    spec = msgspec.json.decode(text, type=Spec)
    own, size = spec.own(), 1
    run: Callable[[Any], None]
    close: Callable[[], None] = lambda: None  # noqa: E731
    if kind == "edit":
        edits = Edits(spec)
        run, close = edits.run, edits.close
    elif kind == "judge":
        run, size = Judged(spec).run, spec.work.group_size
    else:
        run = _serial(spec)
    _say({"ready": True})
    work = iter([own[at : at + size] for at in range(0, len(own), size)] * 1000)
    for line in sys.stdin:
        seconds = []
        for _ in range(int(line)):
            began, some = time.monotonic(), next(work)
            run(some if kind == "judge" else some[0])
            seconds.append(time.monotonic() - began)
        close()
        if kind == "edit":
            edits._saving = ThreadPoolExecutor(1)
        _say({"seconds": seconds})
