"""What of a changed world is refused, what is told, and what ends all that was durable."""

import copy

import pytest

from runtime.resume import compare, item_size, work_changes

BEFORE = {
    "config": {"pipeline": "interpolate", "video": {"crf": 16}, "run": {"seed": 0}},
    "config_sha256": "c1",
    "input": "/in.mp4",
    "output": "/out.mp4",
    "inputs": {
        "/in.mp4": {"path": "/in.mp4", "bytes": 100, "mtime_ns": 5, "ends_sha256": "e1"},
        "random:0": {},
    },
    "code_sha256": "k1",
    "stage_code": {"mine": "k3"},
    "seed": 0,
    "versions": {"torch": "2.11.0"},
    "machine": "x86_64",
    "cpu": "Xeon",
    "threads": {"decode/0": 2},
    "devices": {"decode/0": "NVIDIA H200"},
    "shapes": {"decode.middle": [2, 8]},
    "work": {"num_items": 30, "item_size": 2, "items_per_segment": 4},
}


def changed(**parts):
    """Return what is found now: `BEFORE`, but for these ("inputs__/in.mp4__bytes")."""
    now = copy.deepcopy(BEFORE)
    for place, value in parts.items():
        *above, last = place.split("__")
        inside = now
        for name in above:
            inside = inside[name]
        inside[last] = value
    return now


def test_nothing_that_changed_is_nothing_to_say():
    changes = compare(BEFORE, changed())
    assert (changes.refused, changes.told) == ((), ())
    assert work_changes(BEFORE, changed()) == []


@pytest.mark.parametrize(
    ("place", "value", "said"),
    [
        ("config__video__crf", 20, "config.video.crf: 16 -> 20"),
        ("config__run__seed", 7, "config.run.seed: 0 -> 7"),
        ("input", "/other.mp4", "input: /in.mp4 -> /other.mp4"),
        ("output", "/other.mp4", "output: /out.mp4 -> /other.mp4"),
        ("inputs__/in.mp4__bytes", 90, "/in.mp4: had 100 bytes, and has 90"),
        ("inputs__/in.mp4__ends_sha256", "e2", "/in.mp4: has changed"),
        ("inputs__/in.mp4__mtime_ns", 6, "/in.mp4: was written since (size, start and end are"),
        ("inputs__/in.mp4", {}, "/in.mp4: is gone"),
        ("inputs__random:0", {"bytes": 1}, "random:0: is a file by now"),
        ("code_sha256", "k2", "the code of runpipe has changed"),
        ("stage_code__mine", "k4", "the code in mine has changed"),
    ],
)
def test_what_makes_another_result_is_refused_by_name(place, value, said):
    changes = compare(BEFORE, changed(**{place: value}))
    (refused,) = changes.refused
    assert refused.startswith(said)
    assert changes.told == ()


@pytest.mark.parametrize(
    ("place", "value", "said"),
    [
        ("versions__torch", "2.13.0", "versions.torch: 2.11.0 -> 2.13.0"),
        ("machine", "aarch64", "machine: x86_64 -> aarch64"),
        ("cpu", "Epyc", "cpu: Xeon -> Epyc"),
        ("threads__decode/0", 1, "threads.decode/0: 2 -> 1"),
        ("devices__decode/0", "cpu", "devices.decode/0: NVIDIA H200 -> cpu"),
        ("shapes__decode.middle", [2, 9], "shapes.decode.middle: [2, 8] -> [2, 9]"),
    ],
)
def test_what_may_change_bytes_is_told_and_not_refused(place, value, said):
    changes = compare(BEFORE, changed(**{place: value}))
    assert (changes.refused, changes.told) == ((), (said,))


def test_only_what_is_known_so_far_is_compared():
    asked = {"config": BEFORE["config"], "input": "/in.mp4", "output": "/other.mp4"}
    assert compare(BEFORE, asked).refused == ("output: /out.mp4 -> /other.mp4",)
    assert compare(BEFORE, asked).told == ()


@pytest.mark.parametrize("part", ["config", "input", "code_sha256", "output"])
def test_what_an_older_run_did_not_note_is_no_match(part):
    before = {name: value for name, value in BEFORE.items() if name != part}
    assert compare(before, BEFORE).refused


def test_items_of_another_kind_are_named():
    now = changed(work__item_size=1, work__num_items=59)
    assert work_changes(BEFORE, now) == ["work.item_size: 2 -> 1", "work.num_items: 30 -> 59"]
    assert compare(BEFORE, now).refused == ()
    assert item_size(BEFORE) == 2
    assert item_size({}) == 0
