"""What a run makes is its user's alone: folders 0700, files that nobody else may write."""

import os
import stat
from pathlib import Path

import pytest

from runtime.fleet import Fleet
from runtime.pipeline import Pipeline
from runtime.run_dir import make_run_dir
from tests.stages.video.clips import double, write_clip

FOR_OTHERS = stat.S_IWGRP | stat.S_IWOTH


@pytest.fixture(params=[0o000, 0o002], ids=oct)
def umask(request):
    before = os.umask(request.param)
    yield
    os.umask(before)


def too_open(folder):
    """Return the names below `folder`, itself too, that others may do too much with."""
    found = {}
    for path in (folder, *folder.rglob("*")):
        mode = stat.S_IMODE(path.lstat().st_mode)
        if (path.is_dir() and mode != 0o700) or (path.is_file() and mode & FOR_OTHERS):
            found[str(path.relative_to(folder))] = oct(mode)
    return found


@pytest.mark.parametrize("inline", [True, False], ids=["inline", "workers"])
def test_a_run_directory_is_its_users_alone(inline, umask, make_config, numbers, tmp_path):
    with Pipeline(make_config(), inline=inline) as pipeline:
        run = tmp_path / "new" / "run"
        pipeline.run(input=numbers(4), output=tmp_path / "out", run_dir=run)
    assert (run / "report.json").is_file()
    assert (run / "journal.sqlite").is_file()
    found = too_open(tmp_path / "new")
    found.pop("run/segments", None)  # of the fake sink, and its own
    assert {name: mode for name, mode in found.items() if "segments/" not in name} == {}


def test_folders_on_the_way_to_a_run_directory_are_too(umask, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path, is_new = make_run_dir(None, pipeline="p")
    assert is_new
    assert path.parent == tmp_path / "runs"
    assert too_open(tmp_path / "runs") == {}


def test_segments_of_a_video_are_too(umask, tmp_path):
    clip = write_clip(tmp_path / "clip.mp4", 10)
    double(clip, tmp_path / "out.mkv", tmp_path, failed=range(3))
    assert (tmp_path / "work").stat().st_mode
    assert too_open(tmp_path / "work/segments") == {}


def test_segments_are_too_while_they_are_there(umask, tmp_path, monkeypatch):
    monkeypatch.setattr("stages.video.write.Path.unlink", lambda *_args, **_options: None)
    clip = write_clip(tmp_path / "clip.mp4", 10)
    double(clip, tmp_path / "out.mkv", tmp_path)
    assert [path.name for path in sorted((tmp_path / "work/segments").iterdir())] != []
    assert too_open(tmp_path / "work/segments") == {}


def test_sockets_lie_in_a_folder_of_their_own(umask, tmp_path):
    before = set(Path(os.environ["TMPDIR"]).glob("rp-*"))
    with Fleet(run_dir=tmp_path, hang_s=5.0, stop_grace_s=5.0):
        (folder,) = set(Path(os.environ["TMPDIR"]).glob("rp-*")) - before
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
