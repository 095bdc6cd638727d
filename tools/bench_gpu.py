"""What the parts of `tools/bench_eden.py --gpu` share: settings, contenders, what was found."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from runtime.host import ROOT, probe_host
from tools.bench_figures import Figure
from tools.bench_files import make_clip
from tools.bench_measure import Result, measure
from tools.bench_runs import MEMORY, Contender, SinkKind, num_gpus, of_config, source_file
from tools.bench_stages import Stream

SINGLE, DUAL, REPLICAS, ORIGIN = "single_gpu", "dual_gpu", "dual_gpu_replicas", "dual_gpu_origin"
CONFIGS = (SINGLE, DUAL, REPLICAS, ORIGIN)
RATIOS = {DUAL: 0.60, REPLICAS: 0.53, ORIGIN: 1.03}  # over the first, at most
WEIGHTS = "random:0"


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What is measured, and how long."""

    configs: tuple[str, ...] = CONFIGS  # names or paths; paths are named as in CONFIGS
    size: tuple[int, int] = (720, 480)
    pairs: int = 2048
    leave_out: int = 64
    repeat: int = 5
    overrides: tuple[str, ...] = (f"model.weights={WEIGHTS}",)
    clip: Path | None = None  # for what reads a file; None: one is made
    reference_device: str = "cuda"
    reference_pairs: int = 64

    @property
    def weights(self) -> str:
        """Of all contenders."""
        given = [one for one in self.overrides if one.startswith("model.weights=")]
        return given[-1].partition("=")[2] if given else WEIGHTS


@dataclass(slots=True)
class Bench:
    """Where the parts put what they find: `figures` for the table, `details` for the JSON."""

    settings: Settings
    folder: Path
    figures: list[Figure] = field(default_factory=list)
    details: dict[str, Any] = field(default_factory=dict)
    ms_a_pair: dict[str, float] = field(default_factory=dict)  # of each configuration
    _num_folders: int = 0

    def names(self) -> list[str]:
        """Return the configurations that the host has enough GPUs for."""
        have = len(probe_host(ROOT).gpus)
        return [self._name(path) for path in self.settings.configs if num_gpus(path) <= have]

    def tell_missing(self) -> None:
        """Add a row for each configuration that cannot run here."""
        have = len(probe_host(ROOT).gpus)
        for path in self.settings.configs:
            name, wanted = self._name(path), num_gpus(path)
            if wanted > have:
                note = f"needs {wanted} GPUs, the host has {have}"
                self.figures.append(Figure(name, None, target=RATIOS.get(name), note=note))

    def path(self, name: str) -> str:
        """Return what `find_config` takes for a configuration."""
        return next(path for path in self.settings.configs if self._name(path) == name)

    @staticmethod
    def _name(path: str) -> str:
        return Path(path).stem

    def new_folder(self) -> Path:
        """Return the path of a folder that is not there yet."""
        self._num_folders += 1
        return self.folder / f"{self._num_folders:03}"

    def stream(self) -> Path:
        """Return an input of frames from memory."""
        width, height = self.settings.size
        stream = Stream(width=width, height=height, num_pairs=self.settings.pairs)
        return source_file(MEMORY, self.folder, stream)

    def clip(self) -> Path:
        """Return an input with video in it."""
        if self.settings.clip is not None:
            return self.settings.clip
        path = self.folder / "clip.mp4"
        if not path.exists():
            width, height = self.settings.size
            make_clip(path, width=width, height=height, num_frames=self.settings.pairs + 1)
        return path

    @contextmanager
    def contenders(
        self,
        names: Sequence[str],
        *,
        source: str = MEMORY,
        sink: SinkKind = "null",
        traced: str = "",
    ) -> Iterator[list[Contender]]:
        """Give configurations between our ends; their processes end with the block."""
        suffix = ".mp4" if sink == "file" else ".json"
        with ExitStack() as stack:
            yield [
                Contender(
                    name,
                    stack.enter_context(
                        of_config(
                            self.path(name),
                            source,
                            self.settings.overrides,
                            sink=sink,
                            traced=traced,
                        )
                    ),
                    suffix=suffix,
                )
                for name in names
            ]

    def measure(self, contenders: Sequence[Contender], source: Path) -> list[Result]:
        """Run them in turn, and delete what they wrote."""
        folder, settings = self.new_folder(), self.settings
        folder.mkdir()
        try:
            return measure(
                contenders,
                source,
                folder,
                repeat=settings.repeat,
                leave_out=settings.leave_out,
            )
        finally:
            shutil.rmtree(folder)
