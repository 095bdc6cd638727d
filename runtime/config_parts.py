"""The parts of a configuration: one stage, and how to run. `config.py` puts them together."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, Strict, model_validator

from runtime.config_types import (
    CountOrAuto,
    FileName,
    Keywords,
    Replicas,
    Require,
    Seconds,
    Text,
    Use,
    without_plugins,
)

without_plugins()


class Part(BaseModel):
    """Frozen, and closed: an unknown key is a mistake."""

    # deferred, so that what stands inside of another is built once, with that
    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)


class StageConfig(Part):
    """One stage and where its replicas run."""

    use: Use = Field(description="The class, as module:Class.", examples=["stages.eden:Denoise"])
    gpus: tuple[Annotated[int, Strict(), Field(ge=0)], ...] = Field(
        default=(), description="One replica for each GPU named here; none: it runs on the CPU."
    )
    replicas: Replicas = Field(default=1, description="Workers of a CPU stage.")
    assign: Literal["least_loaded", "round_robin"] = Field(
        default="least_loaded", description="Which replica gets the next item."
    )
    unless_resident: Annotated[bool, Strict()] = Field(
        default=False,
        description="Left out where the models of all sections fit into memory at once.",
    )
    python: Text | None = Field(
        default=None,
        description="The Python of another environment for this stage's workers, with msgspec, "
        "pyzmq and numpy in it beside what the stage imports.",
        examples=["envs/judge/bin/python"],
    )
    output: FileName | None = Field(
        default=None,
        description="Of a sink: what it makes, in the folder that the pipeline's `output` names. "
        "One before the last ends a section: what it has written is durable, and a source follows.",
        examples=["edits.jsonl"],
    )
    options: Keywords = Field(
        default_factory=dict,
        alias="with",
        description="Keywords of its constructor; they win over `model` and `video`.",
    )

    @model_validator(mode="after")
    def _one_way_to_count(self) -> Self:
        if self.gpus and self.replicas != 1:
            raise ValueError(
                f"gpus = {list(self.gpus)} already means {replicas_text(len(self.gpus))}; "
                "leave `replicas` out, or name a GPU more often"
            )
        return self

    @property
    def num_replicas(self) -> int:
        """How many workers run this stage."""
        return len(self.gpus) or self.replicas


class RunConfig(Part):
    """How to run, whatever the pipeline is."""

    seed: Annotated[int, Strict(), Field(ge=0, lt=2**63)] = Field(
        default=0, description="Of all random numbers; the same seed gives the same bytes."
    )
    window: CountOrAuto = Field(
        default="auto", description="Items under way; auto: as many as the plan finds needed."
    )
    hang_s: Seconds = Field(
        default=60.0, description="Seconds without a heartbeat after which a worker is killed."
    )
    item_limit_s: Seconds | None = Field(
        default=None, description="The same for one item; left out, 20 x the slowest, at least 60."
    )
    stop_grace_s: Seconds = Field(
        default=10.0, description="Seconds between asking a worker to stop, SIGTERM and SIGKILL."
    )
    threads: CountOrAuto = Field(
        default="auto", description="Of one stage; auto: the usable cores, shared out."
    )
    require: Require = Field(
        default=None,
        description="How tensors must get from one GPU worker to another: `cuda` refuses to run "
        "where GPU memory cannot be shared, `host` always takes host memory; left out, host "
        "memory is taken where it must be, with a warning.",
    )
    only: Text | None = Field(
        default=None,
        description="Run this section alone; what is before it is there already.",
    )
    residency: Literal["auto", "resident", "phased"] = Field(
        default="auto",
        description="Whether the models of all sections are in memory at once, or one section's "
        "after the other's; auto: at once where they fit.",
    )
    trace: Annotated[bool, Strict()] = Field(
        default=True, description="Write what every worker did and when to trace.json."
    )
    strict: Annotated[bool, Strict()] = Field(
        default=False,
        description="Refuse to run where the plan had to be bent to fit, as with fewer GPUs.",
    )


def place(stage: StageConfig) -> str:
    """Return where a stage runs: "gpus [0]", "2 replicas"."""
    return f"gpus {list(stage.gpus)}" if stage.gpus else replicas_text(stage.replicas)


def replicas_text(count: int) -> str:
    """Return "1 replica", "2 replicas"."""
    return f"{count} replica{'s' if count != 1 else ''}"
