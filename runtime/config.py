"""The shape of configs/*.yaml, and all of its defaults. Checked whole, before any process starts.

It must not know what a stage does: keywords of stages are checked by the workers, against the
constructors. Nothing is read from the environment, and no other place sets a default.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Self

import yaml
from pydantic import Field, JsonValue, PrivateAttr, ValidationError, model_validator

from runtime.config_files import CONFIGS, PROJECT, find_config, read_config, shown
from runtime.config_parts import Part, RunConfig, StageConfig, place
from runtime.config_types import Keywords, StageName, Text, Use
from runtime.errors import ConfigError
from runtime.section_names import cut, why_no_sections
from runtime.yaml_text import apply_override, split_override, suggest

__all__ = [
    "CONFIGS",
    "PROJECT",
    "PipelineConfig",
    "RunConfig",
    "StageConfig",
    "dump_config",
    "find_config",
    "load_config",
    "parse_config",
]


Groups = tuple[tuple[str, ...], ...]


class PipelineConfig(Part):
    """A whole pipeline: its stages in data-flow order, the first a source, the last a sink."""

    pipeline: Text = Field(
        description="What the pipeline does, in a word.", examples=["interpolate"]
    )
    input: Text | None = Field(default=None, description="The input, relative to this file.")
    output: Text | None = Field(
        default=None, description="The output, relative to where the command is run."
    )
    model: Keywords = Field(
        default_factory=dict,
        description="Keywords for the constructors of all stages that have them.",
    )
    video: Keywords = Field(default_factory=dict, description="Likewise, of the video.")
    samples: Keywords = Field(
        default_factory=dict, description="Likewise, of a benchmark's samples."
    )
    stages: Mapping[StageName, StageConfig] = Field(
        description="The stages by name, in data-flow order.",
        examples=[{"read": {"use": "stages.video:ReadVideo"}, "next": {"use": "module:Class"}}],
        json_schema_extra={"minProperties": 2, "additionalProperties": False},
    )
    page: Use | None = Field(
        default=None,
        description="Of a pipeline in sections: a function of (output folder, run directory) that "
        "makes a page of a run that has ended.",
        examples=["stages.benchmark.pages:make_page"],
    )
    groups: tuple[tuple[StageName, ...], ...] = Field(
        default=(), description="Lists of stages that share one worker."
    )
    run: RunConfig = Field(
        default_factory=RunConfig, description="How to run, whatever the pipeline is."
    )

    _path: Path | None = PrivateAttr(default=None)
    _whole: PipelineConfig | None = PrivateAttr(default=None)  # that this is a section of

    @property
    def path(self) -> Path | None:
        """The file this was read from; None if it was made in Python."""
        return self._path

    @property
    def folder(self) -> Path:
        """What relative paths in the file start from."""
        return self._path.parent if self._path else Path.cwd()

    @property
    def defaults(self) -> dict[str, JsonValue]:
        """`model`, `video`, `samples` together: defaults for constructor keywords of that name."""
        return {**self.model, **self.video, **self.samples}

    @property
    def has_sections(self) -> bool:
        """Whether the sinks name what they make: so it is run in sections, or is one of them."""
        return "" not in cut(self.stages)

    @property
    def num_computing(self) -> int:
        """How many CPU workers compute, over all sections, wherever they are cut."""
        stages = (self._whole or self).stages
        ends = {end for names in cut(stages).values() for end in (names[0], names[-1])}
        there = (stage for name, stage in stages.items() if name not in ends and not stage.gpus)
        return sum(stage.num_replicas for stage in there)

    def section(self, stages: Mapping[str, StageConfig], groups: Groups) -> PipelineConfig:
        """Return a configuration of these stages of this one."""
        update = {"page": None, "stages": stages, "groups": groups}
        section = self.model_copy(update=update)
        section._whole = self
        return section

    @model_validator(mode="after")
    def _enough_stages(self) -> Self:
        if len(self.stages) < 2:
            raise ValueError(
                f"stages = {list(self.stages)}: a pipeline has a source, which is the first "
                "stage, and a sink, which is the last"
            )
        parts = {"model": self.model, "video": self.video, "samples": self.samples}
        for (one, keys), (other, others) in combinations(parts.items(), 2):
            if both := sorted(keys.keys() & others.keys()):
                raise ValueError(f"`{both[0]}` stands in `{one}` and in `{other}`; leave one out")
        return self

    @model_validator(mode="after")
    def _sections_fit(self) -> Self:
        if why_not := why_no_sections(self.stages, self.groups):
            raise ValueError(why_not)
        return self

    @model_validator(mode="after")
    def _groups_fit(self) -> Self:
        seen: set[str] = set()
        for group in self.groups:
            if len(group) < 2:
                raise ValueError(f"groups: {list(group)}: a group has two stages or more")
            for name in group:
                if name not in self.stages:
                    raise ValueError(
                        f"groups: no stage is named `{name}`; {suggest(name, self.stages)}"
                    )
                if name in seen:
                    raise ValueError(f"groups: stage `{name}` is named twice")
                seen.add(name)
            self._check_alike(group)
        return self

    def _check_alike(self, group: tuple[str, ...]) -> None:
        first, *others = group
        for name in others:
            if place(self.stages[name]) != place(self.stages[first]):
                raise ValueError(
                    f"groups: {list(group)} share one worker, but {first} has "
                    f"{place(self.stages[first])} and {name} has {place(self.stages[name])}"
                )
            if self.stages[name].python != self.stages[first].python:
                raise ValueError(f"groups: {list(group)} share one worker, but not their `python`")


def load_config(name_or_path: str | Path, overrides: Sequence[str] = ()) -> PipelineConfig:
    """Read, override, check and resolve a configuration.

    Args:
        name_or_path: see `find_config`.
        overrides: "video.pairs=4", "stages.denoise.gpus=[0]"; values are YAML, later ones win.

    Raises:
        ConfigError: missing, unreadable, of the wrong shape, or contradicting itself.
    """
    path = find_config(name_or_path)
    return parse_config(read_config(path), overrides, path=path.absolute())


def parse_config(
    data: Mapping[str, object], overrides: Sequence[str] = (), *, path: Path | None = None
) -> PipelineConfig:
    """Check and resolve a configuration that was made in Python, or read from `path`.

    Raises:
        ConfigError: of the wrong shape, or contradicting itself.
    """
    where = shown(path) if path else "config"
    for override in overrides:
        data = _override(data, override)
    try:
        config = PipelineConfig.model_validate(data)
    except ValidationError as error:
        from runtime.config_errors import explain  # most are right: no need to load it

        raise ConfigError(explain(error, PipelineConfig, where, overrides)) from error
    config._path = path
    return _resolve(config)


def dump_config(config: PipelineConfig) -> str:
    """Return the configuration as YAML, every default written out; loading that changes nothing."""
    return yaml.safe_dump(config.model_dump(by_alias=True), sort_keys=False, allow_unicode=True)


def _override(data: Mapping[str, object], override: str) -> Mapping[str, object]:
    result = apply_override(data, override)
    before, after = data.get("stages"), result.get("stages")
    if isinstance(before, dict) and isinstance(after, dict):
        for name in after.keys() - before.keys():  # it would become the sink, being the last
            raise ConfigError(
                f"--set {override}: no stage is named `{name}`; {suggest(name, before)}"
            )
    given = result.get("input")
    if split_override(override)[0] == ("input",) and isinstance(given, str) and given:
        result["input"] = str(Path.cwd() / given)  # typed here, so relative to here
    return result


def _resolve(config: PipelineConfig) -> PipelineConfig:
    stages = {
        name: stage.model_copy(
            update={
                "options": _with_weights(stage.options, config.folder),
                "python": stage.python and _interpreter(name, stage.python, config.folder),
            }
        )
        for name, stage in config.stages.items()
    }
    return config.model_copy(
        update={
            "input": config.input and str(config.folder / config.input),
            "output": config.output and str(Path.cwd() / config.output),
            "model": _with_weights(config.model, config.folder),
            "stages": stages,
        }
    )


def _with_weights(keywords: Keywords, folder: Path) -> Keywords:
    """Make the path under `weights` absolute: from here, else the file's folder, else the project.

    One that exists in none of them stays as it is, and so do `random:0` and names of hubs.
    """
    weights = keywords.get("weights")
    if not isinstance(weights, str) or weights.startswith("random:"):
        return keywords
    found = _found(weights, folder)
    return {**keywords, "weights": found} if found else keywords


def _found(path: str, folder: Path) -> str:
    """Return where `path` is, in the order that `_with_weights` says; "" if it is not there."""
    for start in (Path.cwd(), folder, PROJECT):
        if os.path.exists(start / path):  # False, not an error, for a name that is too long
            return os.path.normpath(start / path)
    return ""


def _interpreter(stage: str, path: str, folder: Path) -> str:
    found = _found(path, folder)
    if not found or not os.access(found, os.X_OK):
        raise ConfigError(f"stages.{stage}.python: {path}: there is no such program")
    return found
