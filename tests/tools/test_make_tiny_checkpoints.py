"""The tiny checkpoints are whole ones of the published classes, and small."""

import json

import pytest
from click.testing import CliRunner

from stages.editing import Edit, EncodePrompts
from tools.make_tiny_checkpoints import main

CLASSES = {"editor": "QwenImageEditPipeline", "editor_plus": "QwenImageEditPlusPipeline"}


@pytest.mark.slow
def test_editors_and_a_judge_are_written(tmp_path):
    done = CliRunner().invoke(main, [str(tmp_path)], catch_exceptions=False)
    assert done.exit_code == 0
    written = done.output.split()
    assert written == [str(tmp_path / name) for name in (*CLASSES, "judge")]
    for folder in written:
        files = [path for path in (tmp_path / folder).rglob("*") if path.is_file()]
        assert 0 < sum(path.stat().st_size for path in files) < 2_000_000
    for name, known in CLASSES.items():
        index = json.loads((tmp_path / name / "model_index.json").read_text())
        assert index["_class_name"] == known
    assert "Qwen3VLForConditionalGeneration" in (tmp_path / "judge/config.json").read_text()


@pytest.mark.slow
def test_what_is_written_loads(tmp_path):
    CliRunner().invoke(main, [str(tmp_path), "--seed", "3"], catch_exceptions=False)
    for stage in (EncodePrompts, Edit):
        made = stage(weights=str(tmp_path / "editor_plus"), dtype="float32")
        made.load("cpu")
        made.close()
