"""How a pipeline is cut into sections: after each sink but the last. Pure, and imports no model.

A section has items, a window, pools and a journal of its own. What its sink has written survives
everything, so the next section's source may make other items of it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from pathlib import PurePath

from runtime.config_parts import StageConfig

Stages = Mapping[str, StageConfig]


def cut(stages: Stages, *, resident: bool = False) -> dict[str, tuple[str, ...]]:
    """Return the stages of each section by its name, in order: the stem of what its sink makes.

    {"edits": ("read", "edit", "save"), "scores": ("collect", "score", "report")}; a pipeline that
    is one whole has one section, which is named "".

    Args:
        stages: of the whole pipeline.
        resident: the models of all sections are in memory at once.
    """
    if all(stage.output is None for stage in stages.values()):
        return {"": tuple(stages)}
    sections: dict[str, tuple[str, ...]] = {}
    here: list[str] = []
    for name, stage in stages.items():
        if resident and stage.unless_resident:
            continue
        here.append(name)
        if stage.output is not None:
            sections[PurePath(stage.output).stem] = tuple(here)
            here = []
    return sections


def why_no_sections(stages: Stages, groups: Iterable[Sequence[str]]) -> str:
    """Return why the stages cannot be cut where they say; "" if they can."""
    makers = [name for name, stage in stages.items() if stage.output is not None]
    if not makers:
        return ""
    last = list(stages)[-1]
    if makers[-1] != last:
        return (
            f"stages.{makers[-1]}.output: makes this pipeline one of sections, so its last stage, "
            f"`{last}`, needs an `output` too"
        )
    for resident in (False, True):
        if why_not := _why_no_cut(stages, resident=resident):
            return why_not
    resident_cut = cut(stages, resident=True)
    section_of = {name: section for section, names in resident_cut.items() for name in names}
    for group in groups:
        for one, other in pairwise(name for name in group if name in section_of):
            if section_of[one] != section_of[other]:
                return f"groups: {one} and {other} are in different sections, and share no worker"
    return ""


def _why_no_cut(stages: Stages, *, resident: bool) -> str:
    there = [stage for stage in stages.values() if not (resident and stage.unless_resident)]
    sections = cut(stages, resident=resident)
    if len(sections) < sum(stage.output is not None for stage in there):
        return "stages: two of them have an `output` of one name; sections are named by it"
    for section, names in sections.items():
        if len(names) < 2:
            return f"stages.{names[0]}: is alone in section `{section}`, which needs a source"
    return ""
