"""What a training keeps, and what it refuses: interrupted, diverged, damaged, of another plan."""

import csv
import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import ClassVar

import pytest
import torch
import yaml

from stages.base import UserError
from tests.tools.test_train_eden import PLAN
from tools import train_eden
from tools.eden_command import say_photographs, start
from tools.eden_plan import read_plan
from tools.eden_textures import HELD_OUT
from tools.train_eden import Training, main

PROJECT = Path(__file__).resolve().parents[2]
QUICK = PLAN | {"log_every": 1, "phases": [PLAN["phases"][1] | {"steps": 4}]}


class FakeLesson:
    """A phase that computes nothing: `at` says what happens in which of its steps."""

    at: ClassVar = {}

    def __init__(self, settings, plan, architecture, weights, paint, generator):
        self._constants, self._turn = architecture.constants, 0
        chosen = {name: weight.clone() for name, weight in weights.items()}
        self.average = SimpleNamespace(weights=chosen)
        self.loss, self.gain = torch.ones(2).unbind()

    def step(self, rate):
        self._turn += 1
        self.at.get(self._turn, lambda lesson: None)(self)

    def measure_difference(self):
        return self._constants


@pytest.fixture
def at(monkeypatch):
    monkeypatch.setattr(train_eden, "Lesson", FakeLesson)
    monkeypatch.setattr(FakeLesson, "at", {})
    return FakeLesson.at


def train(out, plan=QUICK, **options):
    Training(plan, out, torch.device("cpu"), **options).run(minutes=5)


def kept(out):
    return {path.name: path.read_bytes() for path in out.iterdir()}


def steps_of(out):
    with (out / "loss.csv").open() as file:
        return [int(row["step"]) for row in csv.DictReader(file)]


def interrupt(_lesson):
    raise KeyboardInterrupt


def fill(value):
    return lambda lesson: next(iter(lesson.average.weights.values())).fill_(value)


@pytest.mark.parametrize(
    ("happens", "said"),
    [
        (fill(float("nan")), "weights that are not finite"),
        (fill(1e6), "weights that are not finite"),  # in 16 bits
        (lambda lesson: lesson.loss.fill_(float("inf")), "the loss is not finite"),
    ],
)
@pytest.mark.parametrize("log_every", [1, 1000])
def test_what_is_not_finite_is_never_saved_over_what_is(tmp_path, at, happens, said, log_every):
    at[3] = interrupt
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path)
    before = kept(tmp_path)
    at.clear()
    at[1] = happens
    with pytest.raises(UserError, match=said):
        train(tmp_path, QUICK | {"log_every": log_every})
    assert kept(tmp_path) == before


def test_an_interrupted_run_is_kept_and_goes_on(tmp_path, at):
    at[3] = interrupt
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path)
    assert json.loads((tmp_path / "state.json").read_text())["steps"] == 2
    at.clear()
    train(tmp_path)
    assert steps_of(tmp_path) == [1, 2, 3, 4]


def test_a_run_is_saved_while_it_goes_and_repeated_steps_are_not_counted_twice(tmp_path, at):
    found = []
    at[3] = lambda lesson: found.append(kept(tmp_path)["state.json"])
    train(tmp_path, save_every_s=0.0)
    assert json.loads(found[0])["steps"] == 2
    (tmp_path / "state.json").write_bytes(found[0])  # as if killed before it was renamed
    train(tmp_path)
    assert steps_of(tmp_path) == [1, 2, 3, 4]
    assert not list(tmp_path.glob("*.part"))


@pytest.mark.parametrize("text", ['{"phase": 0, "st', "{}x", "[]", '{"steps": "4"}', None])
def test_a_state_that_is_damaged_or_missing_is_said(tmp_path, at, text):
    train(tmp_path)
    if text is None:
        (tmp_path / "state.json").unlink()
    else:
        (tmp_path / "state.json").write_text(text)
    with pytest.raises(UserError, match=r"state\.json is (damaged|missing).* empty folder"):
        train(tmp_path)


@pytest.mark.parametrize(
    ("other", "said"),
    [
        ({"model": PLAN["model"] | {"hidden": 64}}, "has hidden 32, the plan has 64"),
        ({"encoder_depth": 0}, "not of the plan's `encoder_depth`, 0"),
    ],
)
def test_a_plan_of_another_model_is_refused(tmp_path, at, other, said):
    train(tmp_path)
    before = kept(tmp_path)
    with pytest.raises(UserError, match=said):
        train(tmp_path, QUICK | other)
    assert kept(tmp_path) == before


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda plan: plan.pop("warmup"), "warmup: Field required"),
        (lambda plan: plan["model"].pop("patch"), r"model\.patch: Field required"),
        (lambda plan: plan["phases"][0].pop("kl"), r"phases\.0: .*`kl` is missing"),
        (lambda plan: plan.update(seeds=1), "seeds: Extra inputs"),
    ],
)
def test_a_plan_that_lacks_something_is_said_and_leaves_nothing(tmp_path, change, said):
    plan = json.loads(json.dumps(PLAN))
    change(plan)
    file, out = tmp_path / "plan.yaml", tmp_path / "out"
    file.write_text(yaml.safe_dump(plan))
    with pytest.raises(UserError, match=said):
        main([str(file), str(out)], standalone_mode=False)
    assert not out.exists()


def test_the_plan_of_the_weights_that_ship_is_whole():
    path = PROJECT / "tools/train_eden.yaml"
    plan = yaml.safe_load(path.read_text())
    read = read_plan(path)
    assert read | {"phases": plan["phases"]} == plan
    shared = [{k: v for k, v in phase.items() if v is not None} for phase in read["phases"]]
    assert shared == plan["phases"]


@pytest.mark.parametrize("device", ["nonsense", "cuda:99", "meta"])
def test_a_device_that_is_not_there_is_said_in_one_line(tmp_path, monkeypatch, device):
    plan = str(PROJECT / "tools/train_eden.yaml")
    monkeypatch.setattr(sys, "argv", ["train", plan, str(tmp_path / "out"), "--device", device])
    with pytest.raises(SystemExit) as ended:
        start(main)
    assert ended.value.code.startswith(f"error: Invalid value for '--device': '{device}'")
    assert "\n" not in ended.value.code


def test_how_many_photographs_are_used_is_said(capsys):
    say_photographs({"china.jpg": torch.zeros(3, 8, 8)}, HELD_OUT)
    assert capsys.readouterr() == ("photographs: 1 of 4\n", "")
    say_photographs({}, HELD_OUT)
    shown = capsys.readouterr()
    assert shown.out == "photographs: 0 of 4\n"
    assert shown.err.startswith("warning: no photographs")
