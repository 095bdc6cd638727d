"""What tests of edit_score on the command line share: a set, a cheap pipeline, its results."""

import hashlib
import json

import yaml

from tests.stages.benchmark.sets import png

SIZES = [(64, 48), (48, 64), (64, 64)]  # of sources: edits of three shapes, at 4096 pixels
CATEGORIES = ("physical", "environmental", "causal")
PIPELINE = {
    "pipeline": "edit_score",
    "samples": {"protocol": "origin", "model_name": "fake", "group_size": 4, "area": 4096},
    "page": "stages.benchmark.pages:make_page",
    "stages": {
        "read": {"use": "stages.benchmark.read:ReadSamples"},
        "edit": {"use": "tests.edit_fakes:FakeEdit"},
        "save": {"use": "stages.benchmark.save:SaveEdits", "output": "edits.jsonl"},
        "collect": {"use": "stages.benchmark.collect:CollectEdits"},
        "score": {"use": "tests.edit_fakes:Echoes"},
        "report": {"use": "stages.benchmark.scores:SaveScores", "output": "results.json"},
    },
}


def write_set(folder, count, *, sizes=SIZES, lines=None):
    """Write a folder set of `count` samples, the last id first, of all categories and `sizes`."""
    folder.mkdir()
    written = []
    for at in range(count):
        name = f"s{at:02}"
        (folder / f"{name}.png").write_bytes(png(*sizes[at % len(sizes)], value=at))
        written.append(
            {
                "id": name,
                "group": CATEGORIES[at % len(CATEGORIES)],
                "instruction": f"Change {name}",
                "image": f"{name}.png",
            }
        )
    text = [json.dumps(line) for line in reversed(written)] + (lines or [])
    (folder / "samples.jsonl").write_text("\n".join(text) + "\n")
    return folder


def write_config(path, *, run=None, samples=None, **stages):
    """Write the cheap pipeline; `stages` are changes to those of that name."""
    changed = {
        name: {**PIPELINE["stages"][name], **stages.get(name, {})} for name in PIPELINE["stages"]
    }
    config = {**PIPELINE, "stages": changed, "run": run or {}}
    config["samples"] = {**PIPELINE["samples"], **(samples or {})}
    path.write_text(yaml.safe_dump(config, sort_keys=False))
    return path


def images(output):
    """Return a digest of each edit that a run left, by its path below images/."""
    root = output / "images"
    return {
        str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(root.rglob("*"))
        if path.is_file()
    }


def results(output):
    return json.loads((output / "results.json").read_text())


def told(output):
    """Return what was said of each sample, by id."""
    return {sample["id"]: sample for sample in results(output)["samples"]}


def edits(output):
    lines = (output / "edits.jsonl").read_text().splitlines()
    return {line["id"]: line for line in map(json.loads, lines)}


def begun(log):
    """Return (id, worker) of each edit that began, in order."""
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    return [(line["id"], line["pid"]) for line in lines]
