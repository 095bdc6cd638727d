"""The sections of a pipeline as pipelines of their own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from runtime.config import PipelineConfig
from runtime.errors import ConfigError
from runtime.section_names import cut
from runtime.yaml_text import suggest


def has_other_cut(config: PipelineConfig) -> bool:
    """Whether the pipeline has more sections where its models do not fit into memory at once."""
    return any(stage.unless_resident for stage in config.stages.values())


def section_configs(config: PipelineConfig, *, resident: bool) -> dict[str, PipelineConfig]:
    """Return the configuration of each section that is to run, by name, in data-flow order.

    Args:
        config: of the whole pipeline.
        resident: without the sections that are only there if not all models fit at once.

    Raises:
        ConfigError: `run.only` names no section.
    """
    names = cut(config.stages, resident=resident)
    wanted = list(names)
    if config.run.only is not None:
        always = list(cut(config.stages, resident=True))
        if config.run.only not in always:
            hint = suggest(config.run.only, always)
            raise ConfigError(f"run.only: no section is named `{config.run.only}`; {hint}")
        end = wanted.index(config.run.only)
        first = end
        while first and wanted[first - 1] not in always:
            first -= 1  # what prepares this section is a part of it
        wanted = wanted[first : end + 1]
    return {section: _section(config, names[section]) for section in wanted}


def output_of(config: PipelineConfig, folder: Path) -> Path:
    """Return what the last stage of a section makes in the pipeline's output folder."""
    *_others, last = config.stages.values()
    assert last.output is not None, "sections end with a stage that has one"
    return folder / last.output


def _section(config: PipelineConfig, stages: tuple[str, ...]) -> PipelineConfig:
    here = {name: config.stages[name] for name in stages}
    return config.section(here, tuple(_groups(config, stages)))


def _groups(config: PipelineConfig, stages: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    """Yield the groups as far as they are in one section."""
    for group in config.groups:
        here = tuple(name for name in group if name in stages)
        if len(here) > 1:
            yield here
