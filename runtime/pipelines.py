"""What runs a configuration: a pipeline, or a chain of its sections."""

from __future__ import annotations

from runtime.chain import Chain
from runtime.config import PipelineConfig
from runtime.pipeline import Pipeline
from runtime.terminal import Terminal


def open_pipeline(
    config: PipelineConfig, *, verbosity: int = 0, terminal: Terminal | None = None
) -> Pipeline | Chain:
    """Return what runs `config`: in sections, if it has any."""
    if config.has_sections:
        return Chain(config, verbosity=verbosity, terminal=terminal)
    return Pipeline(config, verbosity=verbosity, terminal=terminal)
