"""May a run be continued, now that things are as they are? Decided from two fingerprints. Pure.

What changes the result is refused by name, unless it is forced. What may change its bytes is told.
What changes the meaning of the journal's item numbers ends all that was durable.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import cast

from runtime.fingerprint import differences

Found = Mapping[str, object]  # as `runtime.fingerprint` makes it

_ASKED = ("config", "input", "output")  # what was asked; known without reading any file
_BYTES = ("versions", "machine", "cpu", "threads", "devices", "shapes")
_GONE = "nothing"


@dataclass(frozen=True, slots=True)
class Changes:
    """What became different since a run began."""

    refused: tuple[str, ...]  # "config.video.crf: 16 -> 20": another result
    told: tuple[str, ...]  # "versions.torch: 2.11.0 -> 2.13.0": perhaps other bytes


def compare(before: Found, now: Found) -> Changes:
    """Return what differs of the parts that `now` has; it may not be complete yet."""
    asked = {part: now[part] for part in _ASKED if part in now}
    bytes_of = {part: now[part] for part in _BYTES if part in now}
    refused = _texts(_parts(before, asked), asked)
    if "inputs" in now:
        refused += list(_changed_inputs(_files(before), _files(now)))
    if "code_sha256" in now and before.get("code_sha256") != now["code_sha256"]:
        refused.append("the code of runpipe has changed")
    if "stage_code" in now:
        refused += _changed_code(_hashes(before), _hashes(now))
    return Changes(tuple(refused), tuple(_texts(_parts(before, bytes_of), bytes_of)))


def work_changes(before: Found, now: Found) -> list[str]:
    """Return why the items of the two are not the same: "work.item_size: 16 -> 8"."""
    return _texts({"work": before.get("work", {})}, {"work": now.get("work", {})})


def item_size(before: Found) -> int:
    """Return how large the items of a run were; 0 if it did not come to that."""
    work = before.get("work", {})
    size = work.get("item_size", 0) if isinstance(work, Mapping) else 0
    return size if isinstance(size, int) else 0


def _texts(before: Found, now: Found) -> list[str]:
    return [f"{name}: {old} -> {new}" for name, (old, new) in differences(before, now).items()]


def _parts(before: Found, like: Found) -> dict[str, object]:
    return {part: before.get(part, _GONE) for part in like}


def _files(found: Found) -> dict[str, dict[str, object]]:
    return cast(dict[str, dict[str, object]], found.get("inputs", {}))


def _hashes(found: Found) -> dict[str, str]:
    return cast(dict[str, str], found.get("stage_code", {}))


def _changed_code(before: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    """Return whose code differs; a stage from elsewhere is another configuration."""
    names = sorted(before.keys() & now.keys())
    return [f"the code in {name} has changed" for name in names if before[name] != now[name]]


def _changed_inputs(
    before: Mapping[str, Mapping[str, object]], now: Mapping[str, Mapping[str, object]]
) -> Iterator[str]:
    """Yield what became of each file; one that is not read any more changed by another name."""
    for name, old in before.items():
        new = now.get(name, old)
        if old == new:
            continue
        if not new:
            yield f"{name}: is gone"
        elif not old:
            yield f"{name}: is a file by now"
        elif old.get("bytes") != new.get("bytes"):
            yield f"{name}: had {old.get('bytes')} bytes, and has {new.get('bytes')}"
        elif old.get("ends_sha256") != new.get("ends_sha256"):
            yield f"{name}: has changed"
        else:
            yield f"{name}: was written since (size, start and end are the same)"
