"""A configuration is found, overridden, resolved and dumped; every shipped one is right."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from runtime.config import (
    CONFIGS,
    PROJECT,
    dump_config,
    find_config,
    load_config,
    parse_config,
)
from runtime.errors import ConfigError

GOOD = """\
pipeline: interpolate
input: clip.mp4
output: out.mp4
model: {weights: "random:0", dtype: float32}
video: {pairs: 2}
stages:
  read: {use: "stages.video:ReadVideo"}
  denoise: {use: "stages.eden:Denoise", gpus: [0], with: {steps: [1, 2]}}
  decode: {use: "stages.eden:Decode", gpus: [0]}
  write: {use: "stages.video:WriteVideo", replicas: 2}
groups: [[denoise, decode]]
run: {seed: 7}
"""


@pytest.fixture
def here(tmp_path, monkeypatch):
    (tmp_path / "yaml").mkdir()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def load(text, *overrides):
    path = Path("yaml/c.yaml")
    path.write_text(text)
    return load_config(path, overrides)


def test_a_good_one_is_loaded_with_its_stages_in_order(here):
    config = load(GOOD)
    assert list(config.stages) == ["read", "denoise", "decode", "write"]
    assert config.stages["denoise"].options == {"steps": [1, 2]}
    assert config.stages["write"].num_replicas == 2
    assert config.stages["denoise"].gpus == (0,)
    assert config.groups == (("denoise", "decode"),)
    assert config.defaults == {"weights": "random:0", "dtype": "float32", "pairs": 2}
    assert (config.run.seed, config.run.window, config.run.hang_s) == (7, "auto", 60)
    assert config.path == here / "yaml/c.yaml"
    assert config.folder == here / "yaml"


def test_it_cannot_be_changed(here):
    with pytest.raises(ValueError, match="frozen"):
        load(GOOD).run.seed = 3


def test_input_starts_from_the_file_and_output_from_here(here):
    config = load(GOOD)
    assert (config.input, config.output) == (
        str(here / "yaml/clip.mp4"),
        str(here / "out.mp4"),
    )
    assert load(GOOD, "input=clip.mp4").input == str(here / "clip.mp4")
    assert load(GOOD, "input=/a/clip.mp4").input == "/a/clip.mp4"


def test_weights_are_looked_up_here_then_beside_the_file_then_in_the_project(here):
    text = GOOD.replace('"random:0"', "w.pt").replace("steps: [1, 2]", "weights: setup.cfg")
    assert load(text).model["weights"] == "w.pt"  # in none: the stage will say so
    assert load(text).stages["denoise"].options["weights"] == str(PROJECT / "setup.cfg")
    Path("yaml/w.pt").touch()
    assert load(text).model["weights"] == str(here / "yaml/w.pt")
    Path("w.pt").touch()
    assert load(text).model["weights"] == str(here / "w.pt")


def test_a_dump_has_every_default_and_loads_as_the_same(here):
    text = dump_config(load(GOOD))
    assert yaml.safe_load(text)["run"] == {
        "seed": 7,
        "window": "auto",
        "hang_s": 60.0,
        "item_limit_s": None,
        "stop_grace_s": 10.0,
        "threads": "auto",
        "trace": True,
        "require": None,
        "only": None,
        "residency": "auto",
        "strict": False,
    }
    assert yaml.safe_load(text)["stages"]["read"] == {
        "use": "stages.video:ReadVideo",
        "gpus": [],
        "replicas": 1,
        "assign": "least_loaded",
        "with": {},
        "output": None,
        "python": None,
        "unless_resident": False,
    }
    assert dump_config(load(text)) == text


def test_one_made_in_python_is_checked_alike():
    stages = {"a": {"use": "m:A"}, "b": {"use": "m:B"}}
    config = parse_config({"pipeline": "p", "stages": stages}, ["run.seed=3"])
    assert (config.path, config.folder, config.run.seed) == (None, Path.cwd(), 3)
    with pytest.raises(
        ConfigError, match=r"^config: stages\.a\.us: unknown key; did you mean `use`"
    ):
        parse_config({"pipeline": "p", "stages": {**stages, "a": {"us": "m:A"}}})


@pytest.mark.parametrize(
    ("override", "read"),
    [
        ("video.pairs=4", lambda config: config.video["pairs"] == 4),
        ("video.codec=a=b", lambda config: config.video["codec"] == "a=b"),
        (
            "stages.denoise.with.new=x",
            lambda config: config.stages["denoise"].options["new"] == "x",
        ),
        ("stages.read.replicas=3", lambda config: config.stages["read"].replicas == 3),
        ("stages.read.with.deep.er=1", lambda c: c.stages["read"].options["deep"] == {"er": 1}),
        ("run.window=5", lambda config: config.run.window == 5),
        ("groups=[]", lambda config: config.groups == ()),
        ("output=", lambda config: config.output is None),
    ],
)
def test_an_override_is_set_before_the_check(here, override, read):
    assert read(load(GOOD, override))


def test_the_last_override_of_a_key_wins(here):
    assert load(GOOD, "video.pairs=4", "video.pairs=5").video["pairs"] == 5


def test_a_config_is_found_here_and_in_the_project(here):
    shutil.copy("/dev/null", "mine.yaml")
    assert find_config("mine") == Path("mine.yaml")
    assert find_config("mine.yaml") == Path("mine.yaml")
    assert find_config("demo") == CONFIGS / "demo.yaml"
    shutil.copy("/dev/null", "demo.yaml")
    assert find_config("demo") == Path("demo.yaml")
    assert find_config(CONFIGS / "demo.yaml") == CONFIGS / "demo.yaml"


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_shipped_config_is_right(path):
    config = load_config(path)
    assert next(iter(config.stages)) == "read"
    assert config.pipeline in ("interpolate", "edit_score")
    assert dump_config(config)


def test_the_demo_needs_no_gpu_and_no_download():
    demo = load_config("demo")
    assert not any(stage.gpus for stage in demo.stages.values())
    assert PROJECT in Path(demo.model["weights"]).parents
    assert Path(demo.model["weights"]).is_file()
    assert demo.input == str(CONFIGS / "demo/clip.mp4")


def test_pydantic_looks_for_no_plugins(project):
    """For that it reads the metadata of all packages, and `check` is to answer at once."""
    code = "import sys, runtime.config; print('importlib.metadata' in sys.modules)"
    command = [sys.executable, "-P", "-c", code]
    env = {"PYTHONPATH": str(project)}
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
