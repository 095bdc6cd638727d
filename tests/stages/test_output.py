"""An output is known again by whoever comes later, whenever its writer was killed."""

import os
import shutil

import pytest

from stages.output import NOTE, is_published, note, publish


@pytest.fixture
def work(tmp_path):
    (tmp_path / "work").mkdir()
    (tmp_path / ".out.part").write_text("whole")
    return tmp_path / "work"


def test_a_published_output_is_known_again(tmp_path, work):
    output = tmp_path / "out"
    output.write_text("old")
    assert not is_published(output, work)
    publish(tmp_path / ".out.part", output, work)
    assert output.read_text() == "whole"
    assert is_published(output, work)
    assert not is_published(tmp_path / "other", work)
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["out", "output.json", "work"]


def test_killed_before_the_renaming_it_is_not_published(tmp_path, work):
    output = tmp_path / "out"
    output.write_text("old")
    note(tmp_path / ".out.part", output, work)
    assert not is_published(output, work)
    (tmp_path / ".out.part").rename(output)
    assert is_published(output, work), "killed right after it"


@pytest.mark.parametrize(
    "spoil",
    [
        lambda output, _work: output.unlink(),
        lambda output, _work: output.write_text("WHOLE"),
        lambda output, _work: os.utime(output, (1, 1)),
        lambda output, _work: (
            shutil.copy2(output, f"{output}2") and os.replace(f"{output}2", output)
        ),
        lambda _output, work: (work / NOTE).unlink(),
        lambda _output, work: (work / NOTE).write_text("{"),
        lambda _output, work: (work / NOTE).write_bytes(b"\xff"),
    ],
)
def test_what_is_not_exactly_it_is_not_believed(tmp_path, work, spoil):
    output = tmp_path / "out"
    publish(tmp_path / ".out.part", output, work)
    spoil(output, work)
    assert not is_published(output, work)
