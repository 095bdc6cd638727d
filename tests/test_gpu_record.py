"""That a reader is told when code changed after it was last run on GPUs."""

import pytest

from tests import gpu_record

RECORD = {
    "date": "2026-11-22T08:00:00+00:00",
    "commit": "0123456789abcdef",
    "gpus": ["NVIDIA H200", "NVIDIA H200"],
    "outcomes": {"passed": 31, "skipped": 1},
}


@pytest.fixture
def files(tmp_path, monkeypatch):
    (tmp_path / "ipc").mkdir()
    for name in ("cuda.py", "cuda_driver.py", "host.py"):
        (tmp_path / "ipc" / name).write_text(name)
    monkeypatch.setattr(gpu_record, "ROOT", tmp_path)
    return tmp_path / "ipc"


def test_nothing_is_said_of_code_that_is_as_it_was(files):
    record = RECORD | {"files": gpu_record.digests()}
    (files / "host.py").write_text("not covered")
    assert gpu_record.summary(record) == [
        "on GPUs (NVIDIA H200, NVIDIA H200): 31 passed, 1 skipped, 2026-11-22, commit 0123456789"
    ]


def test_files_that_changed_came_or_went_are_named(files):
    record = RECORD | {"files": gpu_record.digests()}
    (files / "cuda.py").write_text("changed")
    (files / "cuda_driver.py").unlink()
    (files / "cuda_more.py").touch()
    assert gpu_record.summary(record)[1] == (
        "changed since then: ipc/cuda.py, ipc/cuda_driver.py, ipc/cuda_more.py"
    )


def test_many_changed_files_are_counted(files):
    record = RECORD | {"files": gpu_record.digests()}
    for number in range(20):
        (files / f"cuda_{number:02}.py").touch()
    assert gpu_record.summary(record)[1].endswith("ipc/cuda_07.py and 12 more")


def test_what_is_covered_exists():
    for pattern in gpu_record.COVERED:
        assert list(gpu_record.ROOT.glob(pattern)), pattern
