"""The code of stages that are not ours is a part of what a run was."""

import sys

import pytest

from runtime import stage_code as stage_code_module
from runtime.config import parse_config
from runtime.errors import ConfigError, StageFailed
from runtime.pipeline import Pipeline
from runtime.stage_code import stage_code
from runtime.stored import load_run_config

MINE = '''
from tests.fakes import Add


class Mine(Add):
    """{text}"""
'''


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    """A folder that Python looks for modules in, here and in workers."""
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.setenv("PYTHONPATH", str(folder), prepend=":")
    yield folder
    for name in [name for name in sys.modules if name.partition(".")[0] in ("alone", "mine")]:
        del sys.modules[name]


def write(path, text=""):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_a_module_and_a_whole_package_are_looked_at_and_nothing_is_imported(elsewhere):
    write(elsewhere / "alone.py", "raise SystemExit")
    write(elsewhere / "mine/__init__.py", "raise SystemExit")
    write(elsewhere / "mine/parts/one.py")
    write(elsewhere / "mine/parts/two.py")
    uses = ["mine.parts.one:Stage", "alone:Stage", "stages.video.read:ReadVideo", "nowhere:Stage"]
    first = stage_code(uses)
    assert first.keys() == {"mine", "alone"}, "ours are hashed with all that is ours"
    write(elsewhere / "mine/parts/two.py", "changed = True")
    second = stage_code(uses)
    assert first["alone"] == second["alone"]
    assert first["mine"] != second["mine"], "it may import that one"
    write(elsewhere / "alone.py", "changed = True")
    assert stage_code(uses)["alone"] != first["alone"]
    assert not sys.modules.keys() & {"mine", "alone"}


def test_of_a_large_package_only_the_module_itself_is_looked_at(elsewhere, monkeypatch):
    monkeypatch.setattr(stage_code_module, "MAX_FILES", 2)
    for name in ("__init__", "one", "two"):
        write(elsewhere / f"mine/{name}.py", name)
    first = stage_code(["mine.one:Stage"])
    assert first.keys() == {"mine.one"}
    write(elsewhere / "mine/two.py", "changed = True")
    assert stage_code(["mine.one:Stage"]) == first
    write(elsewhere / "mine/one.py", "changed = True")
    assert stage_code(["mine.one:Stage"]) != first


def test_a_stage_whose_code_has_changed_is_refused_by_name(elsewhere, numbers, tmp_path):
    write(elsewhere / "mine/__init__.py")
    write(elsewhere / "mine/own.py", MINE.format(text="as it was"))
    full, folder = tmp_path / "full", tmp_path / "run"
    full.touch()
    sink = {"use": "tests.resume_fakes:FullDisk", "with": {"full": str(full), "at": 2}}
    own = {"read": {"use": "tests.fakes:Numbers"}, "add": {"use": "mine.own:Mine"}, "write": sink}
    config = parse_config({"pipeline": "fake", "stages": own})
    with Pipeline(config) as pipeline, pytest.raises(StageFailed, match="No space"):
        pipeline.run(input=numbers(5), output=tmp_path / "out", run_dir=folder)
    full.unlink()
    write(elsewhere / "mine/own.py", MINE.format(text="as it is"))
    with Pipeline(load_run_config(folder)) as pipeline:
        with pytest.raises(ConfigError, match=r"same run: the code in mine has changed; --force"):
            pipeline.resume(folder)
        report = pipeline.resume(folder, force=True)
    assert (report.status, report.items.done, report.resumed.items) == ("done", 5, 2)
    assert report.warnings == ("changed: the code in mine has changed",)
