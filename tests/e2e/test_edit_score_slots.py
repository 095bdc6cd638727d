"""One queue over all editors: nobody waits for the end of a category, nor for others at a turn."""

import json
import tempfile
import threading
from contextlib import closing
from pathlib import Path

import pytest

from tests.e2e.edited import edits, write_config
from tests.edit_clock import Clock
from tests.stages.benchmark.sets import png

COUNTS = {"physical": 50, "environmental": 50, "cultural": 70, "causal": 50, "referential": 50}
EDITORS = 6


@pytest.fixture
def clock():
    """Return a clock for 270 samples on six editors, which runs."""
    with tempfile.TemporaryDirectory() as folder:  # a socket's path is short
        made = Clock(f"{folder}/clock", editors=EDITORS, samples=sum(COUNTS.values()))
        thread = threading.Thread(target=made.run)
        thread.start()
        with closing(made):
            yield made, f"{folder}/clock"
            made.stop()
            thread.join()


def write_big_set(folder):
    folder.mkdir()
    (folder / "a.png").write_bytes(png(32, 32))
    lines = [
        {"id": f"{group}-{at:02}", "group": group, "instruction": "Change", "image": "a.png"}
        for group, count in COUNTS.items()
        for at in range(count)
    ]
    (folder / "samples.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


def test_270_samples_in_five_categories_take_six_editors_45_turns(runpipe, clock, tmp_path):
    made, path = clock
    given = write_big_set(tmp_path / "set")
    edit = {"use": "tests.edit_clock:Clocked", "replicas": EDITORS, "with": {"clock": path}}
    write_config(tmp_path / "c.yaml", edit={**edit, "assign": "least_loaded"})
    ended = runpipe(
        *("--config", "c.yaml", "--input", given, "--output", "out", "--run-dir", "run"),
        *("--only", "edits"),
    )
    assert ended.returncode == 0, ended.stderr
    assert len(edits(Path(tmp_path / "out"))) == 270
    joined = sum(-(-count // EDITORS) for count in COUNTS.values())
    assert (len(made.ticks), joined) == (45, 48)
    assert {sum(tick.values()) for tick in made.ticks} == {EDITORS}, "all at work, all the time"
    assert any(len(tick) > 1 for tick in made.ticks), "turns with two categories in them"
