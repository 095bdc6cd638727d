"""The sections of a pipeline as pipelines of their own."""

from __future__ import annotations

from pathlib import Path

from runtime.config import PipelineConfig
from runtime.errors import ConfigError
from runtime.section_names import cut
from runtime.yaml_text import suggest


def section_configs(config: PipelineConfig) -> dict[str, PipelineConfig]:
    """Return the configuration of each section that is to run, by name, in data-flow order.

    Raises:
        ConfigError: `run.only` names none of them.
    """
    names = cut(config.stages)
    only = config.run.only
    if only is not None and only not in names:
        raise ConfigError(f"run.only: no section is named `{only}`; {suggest(only, names)}")
    return {
        section: _section(config, stages)
        for section, stages in names.items()
        if only in (None, section)
    }


def output_of(config: PipelineConfig, folder: Path) -> Path:
    """Return what the last stage of a section makes in the pipeline's output folder."""
    *_others, last = config.stages.values()
    assert last.output is not None, "sections end with a stage that has one"
    return folder / last.output


def _section(config: PipelineConfig, stages: tuple[str, ...]) -> PipelineConfig:
    return config.model_copy(
        update={
            "page": None,
            "stages": {name: config.stages[name] for name in stages},
            "groups": tuple(group for group in config.groups if group[0] in stages),
        }
    )
