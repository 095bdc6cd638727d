"""The configurations that edit and score on GPUs: well written, and where their workers run."""

import pytest

from runtime.cli import answer
from runtime.config import load_config
from runtime.config_files import read_config
from runtime.host import Gpu, Host
from runtime.plan import plan_workers
from runtime.sections import section_configs

SHIPPED = {"edit_score": 6, "edit_score_single": 1}


def placed(name, num_gpus):
    """Return the device of each worker, by section."""
    gpus = tuple(Gpu(i, f"GPU-{i}", "H200", 2**37, 2**37) for i in range(num_gpus))
    host = Host("box", "6.1", "3.12", cores=64, memory_bytes=2**39, gpus=gpus)
    found, told = {}, []
    for section, config in section_configs(load_config(name), resident=True).items():
        workers, warnings = plan_workers(config, host)
        found[section] = {one.name: one.shown_device for one in workers}
        told += warnings
    return found, told


@pytest.mark.parametrize("name", SHIPPED)
def test_they_are_well_written(name, capsys):
    code, told = answer(["check", "--config", name]), capsys.readouterr()
    assert (code, told.err) == (0, "")
    assert told.out.startswith(f"ok: configs/{name}.yaml: edit_score: read, prompts, keep, ")


@pytest.mark.parametrize(("name", "num_gpus"), SHIPPED.items())
def test_each_gpu_has_an_editor_and_a_judge(name, num_gpus):
    found, warnings = placed(name, num_gpus)
    devices = {place for workers in found.values() for place in workers.values()}
    assert devices == {"cpu", *(f"cuda:{gpu}" for gpu in range(num_gpus))}
    for gpu in range(num_gpus):
        assert found["edits"][f"prompts+edit/{gpu}"] == f"cuda:{gpu}"
        assert found["results"][f"score/{gpu}"] == f"cuda:{gpu}"
    assert warnings == []


def test_with_fewer_gpus_those_that_there_are_take_it_over():
    found, warnings = placed("edit_score", 2)
    assert [name for name in found["edits"] if name.startswith("prompts")] == [
        "prompts+edit/0",
        "prompts+edit/1",
    ]
    assert [name for name in found["results"] if name.startswith("score")] == ["score/0", "score/1"]
    assert len(warnings) == 8
    assert warnings[0].endswith("GPU 2 is asked for and this host has 2; it is done without")


def test_they_differ_in_nothing_but_gpus_and_writers():
    many, one = (read_config(load_config(name).path) for name in SHIPPED)
    for stages in (many["stages"], one["stages"]):
        for stage in stages.values():
            stage.pop("gpus", None)
        stages["save"].pop("replicas", None)
    assert many == one


@pytest.mark.parametrize("name", SHIPPED)
def test_editor_and_judge_have_weights_of_their_own(name):
    config = load_config(name, ["model.weights=random:0"])
    assert config.stages["score"].options["weights"].startswith("checkpoints/")
    assert config.model["weights"] == "random:0"
