"""The judge that README.md shows, run as it stands there."""

import importlib.util
import inspect
import re
import sys

import pytest

from stages.base import UserError
from stages.judging import Score, ScoreByUrl
from tests.stages.judging.groups import Group, member, pixels_of


@pytest.fixture
def page(project):
    return (project / "stages" / "judging" / "README.md").read_text()


@pytest.fixture
def shown(page, tmp_path, monkeypatch):
    """The module that stands in README.md."""
    (block,) = re.findall(r"^```python\n(.+?)^```", page, re.MULTILINE | re.DOTALL)
    path = tmp_path / "my_judges.py"
    path.write_text(block)
    spec = importlib.util.spec_from_file_location("my_judges", path)
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "my_judges", module)
    spec.loader.exec_module(module)
    assert block.count("\n") <= 50
    return module


def test_the_judge_of_the_page_judges_a_group(shown):
    group = Group([member(0), member(1), member(2, state="failed", copy_of=0)])
    same = pixels_of((96, 64), 1).reshape(-1)
    group.inputs["edits"][1, : same.size] = same  # the edit of the second is its source
    group = _with_edit_of_source_size(group, 1)
    judge, said = shown.Sameness(), []
    judge.load("cpu")
    replies = group.run(judge, progress=said.append).replies
    scores = [judge.protocol.parse(0, one.texts[0])["score"] for one in replies[:2]]
    assert scores[1] == 10.0
    assert 0 < scores[0] < 9
    assert replies[2].reason == "not asked: the edit failed: out of paint"
    assert said[-1] == 1.0
    judge.close()


def _with_edit_of_source_size(group, row):
    from dataclasses import replace

    members = list(group.meta.members)
    members[row] = replace(members[row], edited=members[row].source)
    group.meta = replace(group.meta, members=tuple(members))
    return group


def test_the_judge_of_the_page_refuses_what_it_cannot_use(shown):
    with pytest.raises(UserError, match="strictness 0: write more than 0"):
        shown.Sameness(strictness=0)
    with pytest.raises(UserError, match="no such protocol"):
        shown.Sameness(protocol="nobody's")


@pytest.mark.parametrize("kind", [Score, ScoreByUrl])
def test_the_page_names_every_setting(page, kind):
    section = page.split(f"\n## {kind.__name__}\n")[1].split("\n## ")[0]
    for name, setting in inspect.signature(kind).parameters.items():
        assert f"`{name}`" in section, name
        if setting.default not in (inspect.Parameter.empty, "", "protocol", "bfloat16"):
            (row,) = [line for line in section.splitlines() if line.startswith(f"| `{name}`")]
            assert row.split("|")[2].strip() == f"{setting.default:g}", name
