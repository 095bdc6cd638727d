"""What benchmark sources, editors, judges and sinks say to each other: facts, meta, sizes, seeds.

Imports neither a model nor an image library: every worker of such a pipeline imports this.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from hashlib import blake2b
from typing import Literal

from stages.base import Job

EDIT_AREA = 1024 * 1024  # pixels of an edited image, about
SIDE_MULTIPLE = 32  # of an edited image's sides

MAX_INSTRUCTION_BYTES = 4096  # UTF-8: eight fit into a group's meta, and no model reads more
MAX_REASON_CHARS = 400  # of why a sample could not be edited

State = Literal["edited", "failed", "unasked"]


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleFacts:
    """What is known of a set of samples once it is open: those that are asked for.

    `source` of a sample is [max_source_bytes] uint8: its RGB pixels, [height, width, 3] row-major,
    first, then zeros. `edited` is [max_edited_bytes], likewise.
    """

    job: Job
    num_samples: int
    max_source_bytes: int  # largest height * width * 3
    max_instruction_bytes: int  # UTF-8
    sizes: tuple[tuple[int, int], ...]  # distinct (height, width) of sources, largest area first


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleMeta:
    """What travels with one sample."""

    id: str
    group: str
    language: str  # "en", "zh", or as the set writes it ("cn"); "" = it does not say
    instruction: str
    height: int  # of the source
    width: int
    seed: int
    tags: tuple[str, ...] = ()  # of its data set: "intersection", "hard"
    prompt_tokens: int = 0
    negative_tokens: int = 0
    edited_height: int = 0
    edited_width: int = 0
    steps: int = 0
    passes: int = 0  # of the transformer
    tflop: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupFacts:
    """What is known of a set's judge groups once it is open.

    `sources` of a group is [group_size, max_source_bytes] uint8, `edits` is
    [group_size, max_edited_bytes]; a row is RGB pixels, [height, width, 3] row-major, then zeros.
    """

    job: Job
    num_samples: int  # asked for, in all groups
    group_size: int
    max_source_bytes: int
    max_edited_bytes: int
    max_instruction_bytes: int  # UTF-8


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """One sample of a judge group; its row in the tensors is its place in the group."""

    id: str
    group: str
    language: str
    instruction: str
    source: tuple[int, int]  # height, width; (0, 0) where the source itself cannot be read
    edited: tuple[int, int]  # height, width; (0, 0) where there is none
    state: State
    reason: str = ""  # why it failed
    copy_of: int  # row whose pixels stand in its row: its own if edited, -1 if no row is good
    tags: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Replies:
    """What a judge said of one member."""

    texts: tuple[str, ...]  # one per question of the protocol, at most 2000 characters each
    retries: tuple[str, ...]  # second answers; "" = not asked again
    reason: str = ""  # why it could not be asked


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupMeta:
    """What travels with one judge group.

    A group that is not full has fewer members than rows: the rows behind the last member hold what
    row `members[0].copy_of` holds, and nobody is told a score of them.
    """

    members: tuple[Member, ...]
    replies: tuple[Replies, ...] = ()  # one per member, by the judge
    judge: str = ""  # who said it, for reports
    judged_at_once: int = 0  # rows in one batch; fewer than the group has, where memory is short


def edited_size(height: int, width: int, area: int = EDIT_AREA) -> tuple[int, int]:
    """Return (height, width) of the edit of a source: its aspect, about `area` pixels.

    Source: `calculate_dimensions` of diffusers' QwenImageEditPipeline, to the last bit; a side is
    never under 32 pixels, which only extreme aspects reach.
    """
    aspect = width / height
    exact = math.sqrt(area * aspect)  # the width
    sides = (round(side / SIDE_MULTIPLE) * SIDE_MULTIPLE for side in (exact / aspect, exact))
    rounded_height, rounded_width = (max(side, SIDE_MULTIPLE) for side in sides)
    return rounded_height, rounded_width


def sample_seed(run_seed: int, sample_id: str) -> int:
    """Return 63 bits that depend on nothing but the run's seed and the sample's id."""
    digest = blake2b(f"{run_seed}:{sample_id}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1
