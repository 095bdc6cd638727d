"""Which sections have their models in memory together, and the cut for where not all fit."""

import pytest

from runtime.chain import Chain
from runtime.config import parse_config
from runtime.errors import PlanError
from runtime.plan_memory import DeviceMemory
from runtime.residency import Chosen, choose
from runtime.sections import section_configs


def run(chain, tmp_path):
    (tmp_path / "in.txt").write_text("8")
    return chain.run(input=tmp_path / "in.txt", output=tmp_path / "out", run_dir=tmp_path / "run")


def other_cut(tmp_path, **run):
    """Return a pipeline with a section that is only there where not all models fit at once."""
    stages = {
        "read": {"use": "tests.fakes:Numbers"},
        "first": {"use": "tests.fakes:Add", "with": {"writes": "y"}},
        "keep": {
            "use": "tests.section_fakes:Keeps",
            "output": "firsts.json",
            "unless_resident": True,
        },
        "again": {"use": "tests.section_fakes:Again", "unless_resident": True},
        "add": {"use": "tests.fakes:Add", "with": {"reads": "y", "writes": "z"}},
        "write": {
            "use": "tests.fakes:Lines",
            "output": "sums.txt",
            "with": {"reads": "z", "per_segment": 1},
        },
    }
    groups = [["first", "add"]]
    return parse_config({"pipeline": "p", "stages": stages, "groups": groups, "run": run})


@pytest.mark.parametrize("residency", ["resident", "auto", "phased"])
def test_a_section_is_cut_out_only_where_not_all_fit(tmp_path, residency):
    with Chain(other_cut(tmp_path, residency=residency)) as chain:
        report = run(chain, tmp_path)
    lines = (tmp_path / "out/sums.txt").read_text().splitlines()
    assert lines[3] == "3|item 3|5 6 7 8"
    expected = ["firsts", "sums"] if residency == "phased" else ["sums"]
    assert list(report.sections) == expected


def test_what_does_not_fit_at_once_is_cut_by_itself(tmp_path, monkeypatch):
    """The host has room for each of the two cuts' sections, but not for the pools of all."""
    config = other_cut(tmp_path)
    (tmp_path / "in.txt").write_text("8")
    with Chain(config) as chain:
        plans = chain.plans(
            run_dir=tmp_path / "dry", input=tmp_path / "in.txt", output=tmp_path / "out"
        )
    assert list(plans) == ["sums"]
    monkeypatch.setattr("runtime.residency.choose", _choose_apart)
    with Chain(config) as chain:
        report = run(chain, tmp_path)
    assert list(report.sections) == ["firsts", "sums"]
    assert report.residency.switches == 1
    assert (tmp_path / "out/sums.txt").read_text().splitlines()[3] == "3|item 3|5 6 7 8"


def _choose_apart(asked, needs):
    names = tuple(needs)
    phases = tuple((name,) for name in names) if len(names) > 1 else (names, ())
    return Chosen(phases, "no room for two")


def memory(device, needed, free):
    return DeviceMemory(device, 0, needed, 0, 0, free)


@pytest.mark.parametrize(
    ("asked", "phases"),
    [
        ("auto", (("prompts",), ("edits", "scores"))),
        ("phased", (("prompts",), ("edits",), ("scores",))),
    ],
)
def test_neighbours_share_a_phase_as_long_as_they_fit(asked, phases):
    needs = {
        "prompts": [memory("cuda:0", 17, 80)],
        "edits": [memory("cuda:0", 43, 80)],
        "scores": [memory("cuda:0", 30, 80), memory("cuda:1", 10, 80)],
    }
    chosen = choose(asked, needs)
    assert chosen.phases == phases
    if asked == "auto":
        assert chosen.why.startswith("prompts, edits, scores at once need 90 bytes on cuda:0, and")


def test_asking_for_all_at_once_is_refused_with_numbers():
    needs = {"edits": [memory("cuda:0", 60, 80)], "scores": [memory("cuda:0", 30, 80)]}
    with pytest.raises(PlanError, match="90 bytes on cuda:0, and 80 bytes are free; say"):
        choose("resident", needs)


def test_threads_are_shared_over_all_sections_wherever_they_are_cut(tmp_path):
    config = other_cut(tmp_path)
    whole = section_configs(config, resident=True)["sums"]
    cut = section_configs(config, resident=False)
    assert whole.num_computing == 2
    assert {name: section.num_computing for name, section in cut.items()} == {
        "firsts": 2,
        "sums": 2,
    }
