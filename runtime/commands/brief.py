"""What there is to say of a configuration before anything starts, in some words."""

from __future__ import annotations

from pathlib import Path

from runtime.config import PipelineConfig
from runtime.config_files import shown

CHECKPOINTS = (".ckpt", ".pt", ".pth", ".safetensors")


def describe(config: PipelineConfig) -> str:
    """Return "configs/demo.yaml: interpolate: read, ..., write; 5 workers, no GPU"."""
    where = f"{shown(config.path)}: " if config.path else ""
    workers = count(num_workers(config), "worker")
    return f"{where}{config.pipeline}: {', '.join(config.stages)}; {workers}, {_gpus(config)}"


def num_workers(config: PipelineConfig) -> int:
    """Return how many processes run the stages: a group is one, times its replicas."""
    beside_another = {name for group in config.groups for name in group[1:]}
    return sum(s.num_replicas for name, s in config.stages.items() if name not in beside_another)


def wanted_gpus(config: PipelineConfig) -> list[int]:
    """Return the GPUs that are asked for."""
    return sorted({gpu for stage in config.stages.values() for gpu in stage.gpus})


def missing_weights(config: PipelineConfig) -> list[str]:
    """Return the checkpoints that are named and are not there: a run would stop at them."""
    named = [config.model, *(stage.options for stage in config.stages.values())]
    files = {str(keywords["weights"]) for keywords in named if "weights" in keywords}
    return sorted(f for f in files if Path(f).suffix in CHECKPOINTS and not Path(f).exists())


def count(number: int, name: str) -> str:
    """Return "1 worker", "2 workers", "no worker"."""
    return f"{number or 'no'} {name}{'s' if number > 1 else ''}"


def _gpus(config: PipelineConfig) -> str:
    gpus = wanted_gpus(config)
    if not gpus:
        return "no GPU"
    return f"GPU{'s' if len(gpus) > 1 else ''} {', '.join(map(str, gpus))}"
