"""The sample sets that ship are what their tool renders, whatever zlib makes of the pixels."""

import json
import sys

from click.testing import CliRunner

from stages.benchmark.formats.origin import CATEGORIES
from stages.benchmark.pictures import read_pixels, size_of
from tests.stages.benchmark.sets import DATA, SETS


def test_the_sets_are_what_their_tool_renders(tmp_path, monkeypatch, project):
    monkeypatch.syspath_prepend(str(project / "tools"))
    import make_samples

    done = CliRunner().invoke(make_samples.main, [str(tmp_path), "--every-format"])
    assert done.exit_code == 0, done.output
    assert (tmp_path / "folder/samples.jsonl").read_text() == (
        SETS["folder"] / "samples.jsonl"
    ).read_text()
    for path in sorted(DATA.rglob("*.png")):  # pixels, as bytes depend on zlib
        assert (read_pixels(path) == read_pixels(tmp_path / path.relative_to(DATA))).all()
    tiny = project / "configs/edit_score"
    lines = [json.loads(line) for line in (tiny / "samples.jsonl").read_text().splitlines()]
    assert {line["group"] for line in lines} == set(CATEGORIES)
    assert [line["id"] for line in lines] == [one.id for one in make_samples.render()]
    assert len({size_of(str(tiny / line["image"])) for line in lines}) == 3
    sys.modules.pop("make_samples")
