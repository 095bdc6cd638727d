"""Which cut of a pipeline in sections is tried: with all models at once, or with those apart."""

from __future__ import annotations

from pathlib import Path

from runtime.config import PipelineConfig
from runtime.sections import has_other_cut, section_configs
from runtime.stored import JOB


def cuts_to_try(config: PipelineConfig, folder: Path) -> tuple[bool, ...]:
    """Return whether to run with all models at once, in the order in which to try.

    A run that has begun goes on in the cut that it began in: its journals are of those sections.

    Args:
        config: of the whole pipeline.
        folder: the run directory.
    """
    if not has_other_cut(config):
        return (True,)
    every = section_configs(config, resident=False)
    few = section_configs(config, resident=True)
    if began := {name for name in every if (folder / name / JOB).exists()}:
        return (began <= few.keys(),)
    return {"auto": (True, False), "resident": (True,), "phased": (False,)}[config.run.residency]
