"""Images that a set holds in itself: taken out once, as a stream, by whoever comes first."""

import fcntl
import json
import os
import resource
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest

from stages.base import UserError
from stages.benchmark import samples
from stages.benchmark.collect import CollectEdits
from stages.benchmark.read import ReadSamples
from tests.stages.benchmark.sets import SETS, job_of, outputs_of, png, record, write_json
from tests.waiting import wait_until

OPEN = """
import sys
from stages.base import Job
from stages.benchmark.read import ReadSamples

def memory(name):
    (line,) = (one for one in open("/proc/self/status") if one.startswith(name))
    return int(line.split()[1]) * 1024

before = memory("VmRSS:")
source = ReadSamples()
job = Job(input=sys.argv[1], output="/out", work_dir=sys.argv[2], run_dir=sys.argv[2])
source.open(job)
print(source.num_units(), memory("VmHWM:") - before)
"""


def begin(given, folder, project):
    command = [sys.executable, "-P", "-c", OPEN, str(given), str(folder)]
    environment = {"PYTHONPATH": str(project)}
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)


def left(folder):
    return sorted(path.name for path in (folder / "run/samples").iterdir())


@contextmanager
def full_disk(num_bytes):
    """No file may get longer than this; as on a full disk, writing fails."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_large_set_is_never_whole_in_memory(tmp_path, project):
    padded = png() + bytes(1 << 20)  # a decoder needs no more than the beginning
    given = tmp_path / "set.json"
    with open(given, "w") as file:
        for number in range(40):
            file.write(("," if number else "[") + json.dumps(record(image=padded)))
        file.write("]")
    assert given.stat().st_size > 50 << 20
    process = begin(given, tmp_path / "work", project)
    said = process.communicate(timeout=60)[0].split()
    assert said[0] == "40"
    assert int(said[1]) < 20 << 20, "a few samples of 1.4 MB at a time"


def test_two_processes_that_open_one_set_at_once_get_the_same(tmp_path, project):
    records = [record(f"Do {number}", image=png(value=number)) for number in range(30)]
    given = write_json(tmp_path / "set.json", records)
    both = [begin(given, tmp_path / "run", project) for _ in range(2)]
    assert [process.communicate(timeout=60)[0].split()[0] for process in both] == ["30", "30"]
    assert len(left(tmp_path)) == 32, "30 images, an index, a lock"
    source = ReadSamples()
    outputs = outputs_of(source, source.open(job_of(given, tmp_path)))
    for number in range(30):
        source.read(f"physical-{number:04}", outputs)
        assert outputs["source"][1] == number


def test_whoever_comes_while_another_takes_images_out_waits_for_it(tmp_path, project):
    def waits():
        lines = Path("/proc/locks").read_text().splitlines()
        return any("->" in line and f" {process.pid} " in line for line in lines)

    given = write_json(tmp_path / "set.json", [record()])
    folder = tmp_path / "run/samples"
    folder.mkdir(parents=True)
    with open(folder / ".lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        process = begin(given, tmp_path / "run", project)
        wait_until(waits, timeout_s=30)
        assert left(tmp_path) == [".lock"]
    assert process.communicate(timeout=60)[0].startswith("1 ")


def test_the_second_who_opens_a_set_takes_nothing_out_again(tmp_path, monkeypatch):
    first = ReadSamples()
    facts = first.open(job_of(SETS["origin"], tmp_path))
    monkeypatch.setattr(samples, "records_of", None)
    again = ReadSamples(limit=2)
    assert again.open(job_of(SETS["origin"], tmp_path)).num_samples == 2
    judged = CollectEdits()
    earlier = str(tmp_path / "run/edit")
    of_groups = judged.open(job_of(SETS["origin"], tmp_path, "score", earlier=earlier))
    assert (facts.num_samples, of_groups.num_samples) == (5, 5)


@pytest.mark.parametrize("change", ["input", "image", "index", "language"])
def test_what_was_taken_out_is_believed_only_if_all_is_as_it_was(tmp_path, change):
    given = write_json(tmp_path / "set.json", [record("Old"), record()])
    source = ReadSamples()
    source.open(job_of(given, tmp_path))
    taken_out = tmp_path / "run/samples"
    if change == "input":
        write_json(given, [record("New"), record()])
    elif change == "image":
        (taken_out / "physical-0000.png").write_bytes(b"half")
    elif change == "index":
        (taken_out / "index.json").write_bytes(b"{")
    languages = ["zh"] if change == "language" else []
    again = ReadSamples(languages=languages)
    outputs = outputs_of(again, again.open(job_of(given, tmp_path)))
    texts = {"input": "New", "language": "\u4e0b\u96e8"}
    meta = again.read("physical-0000", outputs)
    assert meta.instruction == texts.get(change, "Old")


def test_no_space_for_the_images_is_said_in_a_line_and_leaves_nothing_half_done(tmp_path):
    given = write_json(tmp_path / "set.json", [record(), record(image=png() + bytes(9000))])
    with full_disk(5000), pytest.raises(UserError) as caught:
        ReadSamples().open(job_of(given, tmp_path))
    assert "samples: no place for the images of" in str(caught.value)
    assert "File too large" in str(caught.value)
    assert [name for name in left(tmp_path) if "partial" in name or "index" in name] == []
    source = ReadSamples()
    assert source.open(job_of(given, tmp_path)).num_samples == 2


def test_names_of_files_are_plain_and_never_meet(tmp_path):
    names = ["a", "A b", "a b", "a/b", "a-b", "../a", "\u732b", "\u72d7", "x" * 200, "x" * 199]
    files = [samples.file_name(name) for name in names]
    assert len(set(files)) == len(names)
    assert all(name.isascii() and "/" not in name and "." not in name for name in files)
    given = write_json(tmp_path / "set.json", [record(id=name) for name in names])
    source = ReadSamples()
    outputs = outputs_of(source, source.open(job_of(given, tmp_path)))
    for name in names:
        assert source.read(name, outputs).id == name
    assert sorted(os.listdir(tmp_path)) == ["run", "set.json"]
