"""The plan of a training: the shape of its file, and reading it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from stages.base import UserError

Count = Annotated[int, Field(strict=True, ge=1)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Pair = Annotated[list[Count], Field(min_length=2, max_length=2)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid")


class _Model(_Part):
    hidden: Count
    num_heads: Count
    dit_depth: Count
    decoder_depth: Count
    mlp_hidden: Count
    patch: Count
    latent: Count


class _Data(_Part):
    stock: Count
    refresh: Pair


class _Size(_Part):
    crop: Pair
    frame: Pair


class _Phase(_Part):
    train: Literal["tokenizer", "velocity", "sampler"]
    steps: Count
    batch: Count
    sizes: Annotated[list[_Size], Field(min_length=1)]
    rate: Annotated[list[Positive], Field(min_length=2, max_length=2)]
    loss: Literal["robust", "psnr"] | None = None
    kl: Positive | None = None

    @model_validator(mode="after")
    def _check_loss(self) -> _Phase:
        if self.train != "velocity" and self.loss is None:
            raise ValueError(f"`loss` is missing, which {self.train} needs")
        if self.train == "tokenizer" and self.kl is None:
            raise ValueError("`kl` is missing, which tokenizer needs")
        return self


class _Plan(_Part):
    seed: Annotated[int, Field(strict=True, ge=0)]
    model: _Model
    encoder_depth: Count
    data: _Data
    average: Annotated[float, Field(gt=0, lt=1)]
    weight_decay: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    warmup: Count
    log_every: Count
    phases: Annotated[list[_Phase], Field(min_length=1)]


def read_plan(path: Path) -> dict[str, Any]:
    """Return what the file says, all that a training needs being there.

    Raises:
        UserError: it is no YAML, or something is missing, unknown or of another kind.
    """
    try:
        return _Plan.model_validate(yaml.safe_load(path.read_text())).model_dump()
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not YAML: {' '.join(str(error).split())}") from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the plan"
        raise UserError(f"{path}: {where}: {first['msg']}") from error
